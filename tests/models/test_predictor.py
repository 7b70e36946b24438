"""The prediction for a patch does not depend on the rest of the batch."""

import functools

import jax
import jax.numpy as jnp
import made_run
import numpy as np
import pytest

from mtnet_jax.data import augment
from mtnet_jax.models import mtnet
from mtnet_jax.models import predictor as predictor_lib
from mtnet_jax.system import devices

_PATCH, _SIZE, _BATCH = 16, 32, 3
# The last batch has two patches, so that a test can see which rows are kept.
_COUNT = _BATCH + 2
_WINDOW = (-1000.0, 400.0)
_NETS = {
  'coarse': mtnet.CoarseSegNet(**made_run.TINY['seg_net']),
  'fine': mtnet.FineSegNet(**made_run.TINY['seg_net']),
  'class': mtnet.ClassNet(**made_run.TINY['class_net']),
}
_OPTIONS = {
  'nets': _NETS,
  'size': _SIZE,
  'window': _WINDOW,
  'coarse_mask': 'hard',
}


def _random_variables(name, seed):
  net = _NETS[name]
  inputs = [jnp.zeros((1, _SIZE, _SIZE, 3))]
  if name != 'coarse':
    inputs.append(jnp.zeros((1, _SIZE, _SIZE, 1)))
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), *inputs
  )
  return made_run.draw_like(dict(shapes), seed)


@pytest.fixture(scope='module', name='variables')
def _variables():
  variables = {
    name: _random_variables(name, seed) for seed, name in enumerate(_NETS)
  }
  # Shifts the coarse logits to a median of 0, so that masks have both values.
  images = augment.plain_images(_patches(4), size=_SIZE, window=_WINDOW)
  logits, _ = jax.jit(functools.partial(_NETS['coarse'].apply, train=False))(
    variables['coarse'], images
  )
  bias = variables['coarse']['params']['classifier']['bias']
  bias -= np.median(np.asarray(logits))
  return variables


def _patches(count):
  rng = np.random.default_rng(0)
  return rng.integers(-1000, 400, (count, _PATCH, _PATCH)).astype(np.int16)


@pytest.fixture(scope='module', name='predicted')
def _predicted(variables):
  """Predicts N + 2 patches in batches of N, and counts how often it traces."""
  traces = []
  original = augment.plain_images

  def counting(*args, **kwargs):
    traces.append(1)
    return original(*args, **kwargs)

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(augment, 'plain_images', counting)
    predictor = predictor_lib.Predictor(
      _NETS,
      **{
        **{key: _OPTIONS[key] for key in ('size', 'window', 'coarse_mask')},
        'batch_size': _BATCH,
      },
    )
    replicated = devices.replicate(variables)
    outputs = predictor(replicated, _patches(_COUNT))
    again = predictor(replicated, _patches(_COUNT)[-2:])
  return outputs, again, len(traces)


@pytest.fixture(scope='module', name='one_at_a_time')
def _one_at_a_time(variables):
  step = jax.jit(functools.partial(predictor_lib.predict_step, **_OPTIONS))
  return [
    jax.device_get(step(variables, patch[None])) for patch in _patches(_COUNT)
  ]


def test_shapes_and_types(predicted):
  outputs, _, _ = predicted
  count = _COUNT
  assert {key: x.shape for key, x in outputs.items()} == {
    'coarse': (count, _PATCH, _PATCH),
    'fine': (count, _PATCH, _PATCH),
    'class': (count,),
    'cam': (count, _PATCH, _PATCH),
  }
  for values in outputs.values():
    assert isinstance(values, np.ndarray) and values.dtype == np.float32
    assert np.isfinite(values).all()
  for key in ('coarse', 'fine', 'class'):
    assert outputs[key].min() >= 0 and outputs[key].max() <= 1
    # Predictions differ between patches, so that the tests below can fail.
    assert np.ptp(outputs[key], axis=0).max() > 1e-3


def test_batches_agree_with_single_patches(predicted, one_at_a_time):
  outputs, _, _ = predicted
  for i, alone in enumerate(one_at_a_time):
    for key, values in alone.items():
      np.testing.assert_allclose(
        outputs[key][i], values[0], atol=1e-4, err_msg=f'{key} {i}'
      )


def test_padding_never_counts_and_compiles_once(predicted):
  outputs, again, traces = predicted
  for key, values in again.items():
    assert len(values) == 2
    np.testing.assert_allclose(values, outputs[key][-2:], atol=1e-6)
  assert traces == 1


def test_outputs_are_those_of_the_networks(variables, one_at_a_time):
  @jax.jit
  def by_hand(variables, hu):
    images = augment.plain_images(hu, size=_SIZE, window=_WINDOW)
    logits, _ = _NETS['coarse'].apply(variables['coarse'], images, train=False)
    probs = jax.nn.sigmoid(logits)
    mask = (probs >= 0.5).astype(jnp.float32)
    fine_logits, _ = _NETS['fine'].apply(
      variables['fine'], images, mask, train=False
    )
    class_logits, _ = _NETS['class'].apply(
      variables['class'], images, mask, train=False
    )
    return probs, mask, fine_logits, class_logits

  probs, mask, fine_logits, class_logits = by_hand(variables, _patches(1))
  assert 0.1 < float(mask.mean()) < 0.9
  outputs = one_at_a_time[0]
  np.testing.assert_allclose(
    outputs['class'], jax.nn.sigmoid(class_logits), atol=1e-5
  )
  for key, maps in (('coarse', probs), ('fine', jax.nn.sigmoid(fine_logits))):
    np.testing.assert_allclose(
      outputs[key],
      augment.to_patch_grid(maps[..., 0], _PATCH),
      atol=1e-4,
      err_msg=key,
    )


@pytest.mark.parametrize(
  'names, keys',
  (
    (('coarse',), {'coarse'}),
    (('coarse', 'fine'), {'coarse', 'fine'}),
    (('coarse', 'class'), {'coarse', 'class', 'cam'}),
  ),
)
def test_outputs_are_those_of_the_networks_with_variables(
  variables, names, keys
):
  outputs = jax.eval_shape(
    functools.partial(predictor_lib.predict_step, **_OPTIONS),
    {name: variables[name] for name in names},
    jax.ShapeDtypeStruct((2, _PATCH, _PATCH), jnp.int16),
  )
  assert set(outputs) == keys
