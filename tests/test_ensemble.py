"""Averages of models and symmetries, by hand on made-up answers."""

import ct_files
import made_run
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax import ensemble
from mtnet_jax import errors
from mtnet_jax import model as model_lib


def _prediction(probability, malignancy):
  probability = np.full((2, 64, 64), probability, np.float32)
  return model_lib.Prediction(
    mask=probability >= 0.5,
    probability=probability,
    malignancy=np.full(2, malignancy, np.float32),
    coarse_mask=probability >= 0.5,
    cam=10 * probability,
  )


def test_average_by_hand():
  # Two of three masks are empty, yet the mean probability is 0.6.
  members = [_prediction(p, m) for p, m in ((1, 0.9), (0.4, 0.5), (0.4, 0.1))]
  mean = ensemble.average(members)
  np.testing.assert_allclose(mean.probability, 0.6, atol=1e-6)
  assert mean.mask.all() and not mean.coarse_mask.any()
  np.testing.assert_allclose(mean.malignancy, 0.5, atol=1e-6)
  np.testing.assert_allclose(mean.cam, 6, atol=1e-5)
  np.testing.assert_allclose(
    mean.malignancy_members, [[0.9] * 2, [0.5] * 2, [0.1] * 2], atol=1e-6
  )
  # sqrt((0.4^2 + 0.2^2 + 0.2^2) / 3)
  np.testing.assert_allclose(mean.uncertainty, np.sqrt(0.08), atol=1e-6)


def test_a_network_that_turns_with_its_patch_is_not_changed():
  hu = made_run.patches(3)
  hu[:, :9] = 0  # different in all eight positions
  model = ct_files.Model()
  alone = model.predict(hu, ct_files.SPACING_MM)
  seen = []

  def predict(hu):
    seen.append(hu.tobytes())
    return model.predict(hu, ct_files.SPACING_MM)

  mean = ensemble.predict_symmetric(predict, hu)
  assert len(set(seen)) == 8 and seen[0] == hu.tobytes()
  np.testing.assert_array_equal(mean.mask, alone.mask)
  np.testing.assert_allclose(mean.probability, alone.probability)
  np.testing.assert_allclose(mean.cam, alone.cam, rtol=1e-6)
  np.testing.assert_allclose(mean.malignancy, alone.malignancy)
  assert mean.malignancy_members.shape == (8, 3)
  np.testing.assert_array_equal(mean.uncertainty, 0)


def test_a_network_that_does_not_turn_disagrees_with_itself():
  def upper_half(hu):
    probability = np.zeros(hu.shape, np.float32)
    probability[:, :32] = 1
    return model_lib.Prediction(
      probability > 0.5,
      probability,
      probability.mean((1, 2)),
      probability > 0.5,
      probability,
    )

  mean = ensemble.predict_symmetric(upper_half, made_run.patches(1))
  # Each half of the patch is the upper one in two of eight positions: a corner
  # is marked by two halves, in four of them.
  np.testing.assert_allclose(mean.probability, 0.5)
  np.testing.assert_allclose(mean.uncertainty, 0.5)


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


def test_an_ensemble_of_none_is_refused():
  with pytest.raises(errors.InputError, match='at least one'):
    mtnet_jax.load([])
