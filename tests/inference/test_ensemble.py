"""Averages of models and symmetries, by hand on made-up answers."""

import ct_files
import made_run
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax.inference import ensemble
from mtnet_jax.system import errors


def _answer(fine, malignancy, coarse=0.0):
  fine = np.full((2, 64, 64), fine, np.float32)
  return {
    'fine': fine,
    'class': np.full(2, malignancy, np.float32),
    'coarse': np.full_like(fine, coarse),
    'cam': 10 * fine,
  }


def test_average_by_hand():
  # Two of three fine masks are empty, yet the mean probability is 0.6.
  answers = [
    _answer(*three)
    for three in ((1, 0.9, 0.9), (0.4, 0.5, 0.3), (0.4, 0.1, 0.0))
  ]
  answers[0]['fine'][1, 10:] = 0.4
  together = ensemble.average(iter(answers))
  mean = together.outputs
  np.testing.assert_allclose(mean['fine'][0], 0.6, atol=1e-6)
  np.testing.assert_allclose(mean['fine'][1, 10:], 0.4, atol=1e-6)
  np.testing.assert_allclose(mean['class'], 0.5, atol=1e-6)
  np.testing.assert_allclose(mean['coarse'], 0.4, atol=1e-6)
  np.testing.assert_allclose(mean['cam'], 6, atol=1e-5)
  np.testing.assert_allclose(
    together.malignancy_members, [[0.9] * 2, [0.5] * 2, [0.1] * 2]
  )
  # sqrt((0.4^2 + 0.2^2 + 0.2^2) / 3)
  np.testing.assert_allclose(together.sd['fine'][0], np.sqrt(0.08), atol=1e-6)
  np.testing.assert_allclose(together.sd['fine'][1, 10:], 0, atol=1e-6)
  # sqrt((0.4^2 + 0 + 0.4^2) / 3)
  np.testing.assert_allclose(together.sd['class'], np.sqrt(0.32 / 3), rtol=1e-5)
  assert together.marked[0].all() and together.marked[1].sum() == 640


def test_disagreement_is_averaged_where_any_answer_marks():
  together = ensemble.Averaged(
    outputs={},
    sd={
      'class': np.array([0.1, 0.2, 0.3]),
      # 0.4 on the two marked pixels of the first patch, 0.1 elsewhere.
      'fine': np.where(np.eye(2), 0.4, 0.1)[None].repeat(3, axis=0),
    },
    malignancy_members=None,
    marked=np.stack([np.eye(2), np.ones((2, 2)), np.zeros((2, 2))]) > 0,
  )
  columns = ensemble.disagreement(together)
  np.testing.assert_array_equal(columns['malignancy_sd'], [0.1, 0.2, 0.3])
  np.testing.assert_allclose(columns['fine_uncertainty'], [0.4, 0.25, 0])
  assert not ensemble.disagreement(together._replace(sd={}))


def test_equal_answers_are_kept_exactly():
  answer = _answer(0.1, 0.7, 0.9)
  together = ensemble.average([answer] * 7)
  for key, values in answer.items():
    np.testing.assert_array_equal(together.outputs[key], values)
  for values in together.sd.values():
    np.testing.assert_array_equal(values, 0)


def test_outputs_that_are_not_there_are_not_averaged():
  answers = [{'coarse': np.full((1, 4, 4), x)} for x in (0.0, 0.5)]
  together = ensemble.average(answers)
  assert together.outputs.keys() == {'coarse'}
  np.testing.assert_allclose(together.outputs['coarse'], 0.25)
  assert together.sd == {}
  assert together.marked is together.malignancy_members is None


def test_a_network_that_turns_with_its_patch_is_not_changed():
  hu = made_run.patches(3)
  hu[:, :9] = 0  # different in all eight positions
  model = ct_files.Model()
  alone = model.predict(hu, ct_files.SPACING_MM)
  seen = []

  def predict(hu):
    seen.append(hu.tobytes())
    return model.outputs(hu, ct_files.SPACING_MM)

  for answer in ensemble.views(predict, hu, symmetries=True):
    np.testing.assert_array_equal(answer['fine'], alone.probability)
    np.testing.assert_array_equal(answer['cam'], alone.cam)
  assert len(set(seen)) == 8 and seen[0] == hu.tobytes()
  turned = ensemble.Ensemble([model], symmetries=True)
  mean = turned.predict(hu, ct_files.SPACING_MM)
  # Its coarse mask does not turn.
  for name in ('mask', 'probability', 'cam', 'malignancy'):
    np.testing.assert_array_equal(
      getattr(mean, name), getattr(alone, name), err_msg=name
    )
  assert mean.malignancy_members.shape == (8, 3)
  np.testing.assert_array_equal(mean.uncertainty, 0)


def test_a_network_that_does_not_turn_disagrees_with_itself():
  def upper_half(hu):
    fine = np.zeros(hu.shape, np.float32)
    fine[:, :32] = 1
    return {'fine': fine, 'class': fine.mean((1, 2))}

  views = ensemble.views(upper_half, made_run.patches(1), symmetries=True)
  together = ensemble.average(views)
  # Each half of the patch is the upper one in two of eight positions: a corner
  # is marked by two halves, in four of them.
  np.testing.assert_allclose(together.outputs['fine'], 0.5)
  np.testing.assert_allclose(together.sd['fine'], 0.5)
  assert together.marked.all()


def test_a_list_of_runs_is_an_ensemble(made_run_dir, made_model, tmp_path):
  other_run = made_run.write(tmp_path / 'other', seed=4)
  both = mtnet_jax.load([made_run_dir, other_run])
  other = both.models[1]
  assert both.name == 'made + other' and both.simulated
  hu = made_run.patches(2)
  mean = both.predict(hu, 0.7)
  expected = [model.predict(hu, 0.7) for model in (made_model, other)]
  np.testing.assert_allclose(
    mean.malignancy_members, [one.malignancy for one in expected], atol=1e-6
  )
  np.testing.assert_allclose(
    mean.probability,
    (expected[0].probability + expected[1].probability) / 2,
    atol=1e-6,
  )
  assert np.ptp(mean.malignancy_members, axis=0).min() > 1e-4
  # Loaded again it is the same model; each of these gives other answers.
  assert both.models[0].fingerprint == made_model.fingerprint
  models = [
    made_model,
    other,
    both,
    ensemble.Ensemble(both.models, symmetries=True),
    ensemble.Ensemble(both.models, temperature=2.0),
  ]
  assert len({model.fingerprint for model in models}) == len(models)
  turned = ensemble.Ensemble(both.models, symmetries=True).predict(hu, 0.7)
  assert turned.malignancy_members.shape == (16, 2)
  # Both as they are, and turned: the plain looks are the first of each.
  np.testing.assert_allclose(
    turned.malignancy_members[::8], mean.malignancy_members, atol=1e-6
  )


def test_an_ensemble_of_none_is_refused():
  with pytest.raises(errors.InputError, match='at least one'):
    mtnet_jax.load([])
