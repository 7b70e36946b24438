"""A model predicts HU patches, and refuses other arrays."""

import warnings

import jax
import made_run
import numpy as np
import programs
import pytest
import scipy.stats

from mtnet_jax.data import augment
from mtnet_jax.data import nodules
from mtnet_jax.evaluation import outputs
from mtnet_jax.inference import model as model_lib
from mtnet_jax.models import nets
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors
from tfds_lidc.nodules import patches

_MAPS = ('mask', 'probability', 'coarse_mask', 'cam')


def _model_of(run_dir, **changes):
  """Returns a model with the weights of a run and a changed config."""
  config = made_run.config_of()
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return model_lib.Model(
    name='changed',
    config=config,
    metrics=workdir.read_metrics(run_dir),
    card='',
    variables=workdir.load_variables(run_dir, nets.ORDER),
  )


def _as_nodules(hu):
  """Wraps HU as `outputs.predict` expects them."""
  zeros = np.zeros(hu.shape, np.uint8)
  label = np.zeros(len(hu), np.int32)
  return nodules.Nodules(hu, zeros, zeros, label, {}, simulated=True)


def test_a_prediction_equals_that_of_the_evaluation(made_model, made_run_dir):
  hu = made_run.patches(3)
  prediction = made_model.predict(hu, 0.7)
  expected = outputs.predict(
    workdir.read_config(made_run_dir),
    workdir.load_variables(made_run_dir, nets.ORDER),
    _as_nodules(hu),
    progress=lambda batches: batches,
  )
  for name, key in (
    ('probability', 'fine'),
    ('malignancy', 'class'),
    ('cam', 'cam'),
  ):
    values = getattr(prediction, name)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected[key], atol=1e-5, err_msg=name)
  np.testing.assert_array_equal(prediction.mask, prediction.probability >= 0.5)
  np.testing.assert_array_equal(
    prediction.coarse_mask, expected['coarse'] >= 0.5
  )
  assert prediction.mask.dtype == prediction.coarse_mask.dtype == bool
  # The predictions vary, so the comparisons above can fail.
  assert np.ptp(prediction.malignancy) > 1e-3
  assert 0 < prediction.mask.mean() < 1 and prediction.mask.any()
  assert 0 < prediction.coarse_mask.mean() < 1
  for name in _MAPS:
    assert getattr(prediction, name).shape == (3, 64, 64)


@pytest.mark.parametrize('precision', ['highest', 'default'])
def test_products_have_the_precision_of_the_config(made_run_dir, precision):
  # The default of a backend may be ten bits.
  model = _model_of(made_run_dir, matmul_precision=precision)
  program = jax.make_jaxpr(model.predict_fn)(
    model.variables, np.zeros((1, 64, 64), np.float32), np.ones(1, np.float32)
  )
  found = [x.params['precision'][0] for x in programs.products(program.jaxpr)]
  assert len(found) > 20
  # Resampling is always exact: rounding would move pixels.
  named = jax.lax.Precision[precision.upper()]
  assert set(found) - {jax.lax.Precision.HIGHEST} == (
    set() if precision == 'highest' else {named}
  )


@pytest.mark.parametrize(
  ('num_patches', 'max_size', 'sizes'),
  [
    (1, 32, [1]),
    (2, 32, [2]),
    (3, 32, [4]),
    (17, 32, [32]),
    (32, 32, [32]),
    (33, 32, [32, 1]),
    (100, 32, [32, 32, 32, 4]),
    # `max_size` need not be a power of two.
    (6, 6, [6]),
    (5, 6, [6]),
    (16, 6, [6, 6, 4]),
  ],
)
def test_batches_hold_every_patch_in_few_sizes(num_patches, max_size, sizes):
  assert model_lib.batch_sizes(num_patches, max_size) == sizes
  assert sum(sizes) >= num_patches > sum(sizes[:-1])


def test_sizes_are_traced_once_and_padding_never_counts(
  made_run_dir, monkeypatch
):
  # Models of the same networks share what was traced.
  model_lib._prediction_fns.cache_clear()
  model = _model_of(made_run_dir, eval_batch_size=4)
  traced = []
  original = augment.plain_images

  def counting(hu, **kwargs):
    traced.append(len(hu))
    return original(hu, **kwargs)

  monkeypatch.setattr(augment, 'plain_images', counting)
  hu = made_run.patches(8)
  whole = model.predict(hu, 0.7)
  for count in (3, 7, 4, 8):
    part = model.predict(hu[:count].astype(np.float64), [0.5] * count)
    for name in (*_MAPS, 'malignancy'):
      values = getattr(part, name)
      assert len(values) == count
      np.testing.assert_allclose(
        values, getattr(whole, name)[:count], atol=1e-5, err_msg=name
      )
  assert traced == [4]


def test_spacing_has_no_effect_without_resampling(made_model):
  hu = made_run.patches(3)
  np.testing.assert_array_equal(
    made_model.predict(hu, 0.5).probability,
    made_model.predict(hu, 0.9).probability,
  )


def test_patches_are_resampled_to_the_spacing_of_training(
  made_model, made_run_dir
):
  at_one_mm = _model_of(made_run_dir, **{'dataset.spacing_mm': 1.0})
  assert (made_model.spacing_mm, at_one_mm.spacing_mm) == (None, 1.0)
  hu = made_run.patches(3)
  np.testing.assert_allclose(
    at_one_mm.predict(hu, 1.0).probability,
    made_model.predict(hu, 1.0).probability,
    atol=1e-5,
  )
  # At 2 mm a patch covers twice the field that the networks see. The dataset's
  # own resampling gives the expected input.
  seen = patches._resample(hu.astype(float), 0.5, 64)
  expected = made_model.predict(seen, 1.0)
  prediction = at_one_mm.predict(hu, [2.0] * 3)
  np.testing.assert_allclose(
    prediction.malignancy, expected.malignancy, atol=1e-5
  )
  back = patches._resample(expected.cam, 2.0, 30)  # its centre
  np.testing.assert_allclose(prediction.cam[:, 17:47, 17:47], back, atol=1e-4)
  outside = np.ones((64, 64), bool)
  outside[16:48, 16:48] = False
  assert (prediction.probability[:, outside] == 0).all()
  assert (prediction.probability[:, ~outside] > 0).all()


def test_resampling_keeps_the_centre_and_repeats_the_border():
  rows = np.arange(64.0, dtype=np.float32)
  ramp = np.broadcast_to(rows[:, None], (1, 64, 64))
  wide = np.asarray(augment.resample(ramp, np.float32([2.0])))[0]
  assert wide[32, 32] == pytest.approx(32)
  assert wide[33, 32] == pytest.approx(34)
  # Row 0 is sampled at 32 - 64, outside the map: row 0 and half of row 1.
  assert wide[0, 0] == pytest.approx((0 + 1 / 2) / (1 + 1 / 2))
  same = np.asarray(augment.resample(ramp, np.float32([1.0])))
  np.testing.assert_array_equal(same, ramp)


_GOOD = np.full((2, 64, 64), -800, np.int16)


@pytest.mark.parametrize(
  ('hu', 'message'),
  [
    (_GOOD[0], r'\(64, 64\).*hu\[None\]'),
    (_GOOD[..., None], r'\(2, 64, 64, 1\).*hu\[\.\.\., 0\]'),
    (_GOOD[:, :32, :32], r'\(2, 32, 32\), not \(N, 64, 64\)'),
    (_GOOD[:0], r'\(0, 64, 64\)'),
    (_GOOD > 0, 'bool'),
    (_GOOD.astype(str), '<U'),
    (np.where(np.arange(64) == 3, np.nan, _GOOD), 'NaN'),
    (np.full((1, 64, 64), np.inf), 'infinity'),
    (_GOOD * 100.0, '-80000.*not HU'),
    (np.tanh(made_run.patches(2) / 400.0), r'hu\[0\].*windowed.*-1000'),
    (scipy.stats.zscore(made_run.patches(2), axis=None), 'normalised'),
    (scipy.stats.zscore(made_run.patches(2), axis=(1, 2)) * 3, 'normalised'),
  ],
)
def test_arrays_that_are_not_hu_are_refused(made_model, hu, message):
  with pytest.raises(errors.InputError, match=message):
    made_model.predict(hu, 0.7)


def test_stored_values_cause_a_warning(made_model):
  hu = made_run.patches(3)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    made_model.predict(hu, 0.7)
  with pytest.warns(UserWarning, match='slope and intercept'):
    made_model.predict(np.maximum(hu + 1024, 0), 0.7)


@pytest.mark.parametrize(
  ('spacing', 'message'),
  [
    (0, '=0 is not between'),
    (-0.7, '-0.7'),
    (700, '700 is not between 0.1 and 5'),
    (float('nan'), 'nan'),
    ([0.7, 0.0], '=0 is not'),
    ([0.7, 0.7, 0.7], 'each of the 2 patches'),
    ([[0.7, 0.7]], 'each of the 2 patches'),
    ('wide', 'not a number'),
    (None, 'pixel_spacing_mm'),
  ],
)
def test_wrong_spacings_are_refused(made_model, spacing, message):
  with pytest.raises(errors.InputError, match=message):
    made_model.predict(_GOOD, spacing)


def test_weights_of_another_config_are_refused_in_one_line(made_run_dir):
  model = _model_of(made_run_dir, **{'seg_net.aspp_features': 12})
  with pytest.raises(errors.InputError, match='^changed: .*do not belong.*$'):
    model.predict(_GOOD, 0.7)
