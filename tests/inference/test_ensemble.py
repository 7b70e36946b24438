"""Averages of models and symmetries; expected values are derived by hand."""

import ct_files
import made_run
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax.inference import ensemble
from mtnet_jax.system import errors


def _outputs(fine, malignancy, coarse=0.0):
  """Makes constant outputs for two patches."""
  fine = np.full((2, 64, 64), fine, np.float32)
  return {
    'fine': fine,
    'class': np.full(2, malignancy, np.float32),
    'coarse': np.full_like(fine, coarse),
    'cam': 10 * fine,
  }


def test_average_by_hand():
  # Two of three fine masks are empty, although the mean probability is 0.6.
  all_outputs = [
    _outputs(*values)
    for values in ((1, 0.9, 0.9), (0.4, 0.5, 0.3), (0.4, 0.1, 0.0))
  ]
  all_outputs[0]['fine'][1, 10:] = 0.4
  averaged = ensemble.average(iter(all_outputs))
  mean = averaged.outputs
  np.testing.assert_allclose(mean['fine'][0], 0.6, atol=1e-6)
  np.testing.assert_allclose(mean['fine'][1, 10:], 0.4, atol=1e-6)
  np.testing.assert_allclose(mean['class'], 0.5, atol=1e-6)
  np.testing.assert_allclose(mean['coarse'], 0.4, atol=1e-6)
  np.testing.assert_allclose(mean['cam'], 6, atol=1e-5)
  np.testing.assert_allclose(
    averaged.malignancy_members, [[0.9] * 2, [0.5] * 2, [0.1] * 2]
  )
  # sqrt((0.4^2 + 0.2^2 + 0.2^2) / 3)
  np.testing.assert_allclose(averaged.sd['fine'][0], np.sqrt(0.08), atol=1e-6)
  np.testing.assert_allclose(averaged.sd['fine'][1, 10:], 0, atol=1e-6)
  # sqrt((0.4^2 + 0 + 0.4^2) / 3)
  np.testing.assert_allclose(averaged.sd['class'], np.sqrt(0.32 / 3), rtol=1e-5)
  assert averaged.marked[0].all() and averaged.marked[1].sum() == 640


def test_disagreement_is_averaged_over_pixels_in_any_mask():
  averaged = ensemble.Averaged(
    outputs={},
    sd={
      'class': np.array([0.1, 0.2, 0.3]),
      # 0.4 on the two marked pixels of the first patch, 0.1 elsewhere.
      'fine': np.where(np.eye(2), 0.4, 0.1)[None].repeat(3, axis=0),
    },
    malignancy_members=None,
    marked=np.stack([np.eye(2), np.ones((2, 2)), np.zeros((2, 2))]) > 0,
  )
  columns = ensemble.disagreement(averaged)
  np.testing.assert_array_equal(columns['malignancy_sd'], [0.1, 0.2, 0.3])
  np.testing.assert_allclose(columns['fine_uncertainty'], [0.4, 0.25, 0])
  assert not ensemble.disagreement(averaged._replace(sd={}))


def test_equal_outputs_are_kept_exactly():
  outputs = _outputs(0.1, 0.7, 0.9)
  averaged = ensemble.average([outputs] * 7)
  for key, values in outputs.items():
    np.testing.assert_array_equal(averaged.outputs[key], values)
  for values in averaged.sd.values():
    np.testing.assert_array_equal(values, 0)


def test_missing_outputs_are_not_averaged():
  all_outputs = [{'coarse': np.full((1, 4, 4), x)} for x in (0.0, 0.5)]
  averaged = ensemble.average(all_outputs)
  assert averaged.outputs.keys() == {'coarse'}
  np.testing.assert_allclose(averaged.outputs['coarse'], 0.25)
  assert averaged.sd == {}
  assert averaged.marked is averaged.malignancy_members is None


def test_symmetries_do_not_change_an_equivariant_network():
  hu = made_run.patches(3)
  hu[:, :9] = 0  # different in all eight orientations
  model = ct_files.Model()
  alone = model.predict(hu, ct_files.SPACING_MM)
  seen = []

  def predict(hu):
    seen.append(hu.tobytes())
    return model.outputs(hu, ct_files.SPACING_MM)

  for outputs in ensemble.views(predict, hu, symmetries=True):
    np.testing.assert_array_equal(outputs['fine'], alone.probability)
    np.testing.assert_array_equal(outputs['cam'], alone.cam)
  assert len(set(seen)) == 8 and seen[0] == hu.tobytes()
  rotated = ensemble.Ensemble([model], symmetries=True)
  mean = rotated.predict(hu, ct_files.SPACING_MM)
  # The coarse mask of this model is not equivariant.
  for name in ('mask', 'probability', 'cam', 'malignancy'):
    np.testing.assert_array_equal(
      getattr(mean, name), getattr(alone, name), err_msg=name
    )
  assert mean.malignancy_members.shape == (8, 3)
  np.testing.assert_array_equal(mean.uncertainty, 0)


def test_a_network_that_ignores_orientation_disagrees_with_itself():
  def upper_half(hu):
    fine = np.zeros(hu.shape, np.float32)
    fine[:, :32] = 1
    return {'fine': fine, 'class': fine.mean((1, 2))}

  views = ensemble.views(upper_half, made_run.patches(1), symmetries=True)
  averaged = ensemble.average(views)
  # Each half of the patch is the upper one in two of eight orientations, and
  # each pixel is in two halves: it is marked in four orientations.
  np.testing.assert_allclose(averaged.outputs['fine'], 0.5)
  np.testing.assert_allclose(averaged.sd['fine'], 0.5)
  assert averaged.marked.all()


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
  # Loading again gives the same model; all of the models below differ.
  assert both.models[0].fingerprint == made_model.fingerprint
  models = [
    made_model,
    other,
    both,
    ensemble.Ensemble(both.models, symmetries=True),
    ensemble.Ensemble(both.models, temperature=2.0),
  ]
  assert len({model.fingerprint for model in models}) == len(models)
  rotated = ensemble.Ensemble(both.models, symmetries=True).predict(hu, 0.7)
  assert rotated.malignancy_members.shape == (16, 2)
  # The first of the eight views of each model is the unrotated patch.
  np.testing.assert_allclose(
    rotated.malignancy_members[::8], mean.malignancy_members, atol=1e-6
  )


def test_an_empty_ensemble_is_refused():
  with pytest.raises(errors.InputError, match='at least one'):
    mtnet_jax.load([])
