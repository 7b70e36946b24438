"""Trees are distributed over the devices."""

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest

from mtnet_jax.models import predictor
from mtnet_jax.ops import conv
from mtnet_jax.system import devices as devices_lib
from mtnet_jax.training import step

TREE = {'a': np.arange(6.0).reshape(2, 3), 'b': {'c': np.int32(7)}}


def test_replicated_trees_come_back_unchanged():
  back = devices_lib.unreplicate(devices_lib.replicate(TREE))
  jax.tree.map(np.testing.assert_array_equal, back, TREE)


def test_every_device_holds_a_copy():
  replicated = devices_lib.replicate(TREE)
  devices = jax.local_device_count()
  assert replicated['a'].shape == (devices, 2, 3)
  assert {shard.device for shard in replicated['a'].addressable_shards} == set(
    jax.local_devices()
  )


def test_replicated_inputs_do_not_compile_a_second_time():
  """Outputs of a mapped step are its next inputs: one program is enough."""
  traces = []

  def add_one(tree):
    traces.append(1)
    return jax.tree.map(lambda x: x + 1, tree)

  mapped = jax.pmap(add_one, axis_name=devices_lib.AXIS)
  with jax.log_compiles(False):
    tree = devices_lib.replicate(TREE)
    for _ in range(3):
      tree = mapped(tree)
  assert len(traces) == 1
  np.testing.assert_array_equal(
    devices_lib.unreplicate(tree)['b']['c'], np.int32(10)
  )


def test_split_keeps_the_order_of_the_global_batch():
  np.testing.assert_array_equal(
    devices_lib.split(np.arange(6), 3), [[0, 1], [2, 3], [4, 5]]
  )


def test_gathered_shares_are_the_global_batch():
  devices = jax.device_count()
  batch = np.arange(devices * 6).reshape(devices * 3, 2)
  rows = devices_lib.share(batch)
  assert rows.shape == (jax.local_device_count(), 3, 2)
  np.testing.assert_array_equal(devices_lib.gather({'x': rows})['x'], batch)


def test_a_thread_can_use_a_single_device():
  device = jax.devices()[0]
  assert devices_lib.only_device() is None
  with jax.default_device(device):
    assert devices_lib.only_device() == device
    assert devices_lib.device_count() == 1
    (row,) = devices_lib.share(np.arange(6))
    np.testing.assert_array_equal(row, np.arange(6))
    replicated = devices_lib.replicate(TREE)
    assert replicated['a'].shape == (1, 2, 3)
    assert replicated['a'].devices() == {device}
    with concurrent.futures.ThreadPoolExecutor() as pool:
      assert pool.submit(devices_lib.only_device).result() is None
  assert devices_lib.device_count() == jax.device_count()


@pytest.mark.parametrize(
  ('precision', 'expected'),
  [
    ('highest', {jax.lax.Precision.HIGHEST}),
    ('high', {jax.lax.Precision.HIGH}),
    ('default', {jax.lax.Precision.DEFAULT}),
  ],
)
def test_every_product_has_the_precision_asked_for(precision, expected):
  """In the forward and the backward pass, custom gradients included."""

  def loss(kernels, x):
    for kernel, dilation in zip(kernels, (1, 2, 1), strict=True):
      x = conv.conv(x, kernel, dilation=dilation)
    return jnp.sum(x**2)

  shapes = ((3, 3, 2, 2), (3, 3, 2, 2), (1, 1, 2, 2))
  kernels = [jnp.ones((jax.device_count(), *shape)) for shape in shapes]
  x = jnp.ones((jax.device_count(), 1, 8, 8, 2))
  gradient = devices_lib.mapped(jax.value_and_grad(loss), precision=precision)
  found = list(programs.products(jax.make_jaxpr(gradient)(kernels, x).jaxpr))
  kinds = {equation.primitive.name for equation in found}
  assert kinds == {'dot_general', 'conv_general_dilated'}
  assert len(found) > 20
  assert {p for x in found for p in x.params['precision']} == expected


on_cpu = pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='the option is for CPUs'
)


@on_cpu
def test_forward_programs_use_eigen_for_products():
  options = devices_lib.forward_options()
  matrix = jnp.ones((512, 512))
  program = jax.jit(jnp.matmul, compiler_options=options)
  text = program.lower(matrix, matrix).compile().as_text()
  assert ' dot(' in text and 'ynn' not in text


@on_cpu
@pytest.mark.parametrize('name', ('lean_options', 'forward_options'))
def test_options_that_xla_does_not_know_are_left_out(monkeypatch, name):
  assert getattr(devices_lib, name)()
  unknown = {'xla_cpu_no_such_option': ''}
  monkeypatch.setattr(devices_lib, '_LEAN', unknown)
  monkeypatch.setattr(devices_lib, '_WITH_EIGEN', unknown)
  assert getattr(devices_lib, name)() is None


@pytest.mark.parametrize('name', ('lean_options', 'forward_options'))
def test_accelerators_keep_rounded_values_rounded(monkeypatch, name):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  options = getattr(devices_lib, name)()
  assert options == {'xla_allow_excess_precision': False}


@on_cpu
@pytest.mark.parametrize('options', (None, devices_lib.lean_options()))
def test_a_mapped_step_is_compiled_once_and_donates(options):
  traces = []

  def add_one(tree):
    traces.append(1)
    return jax.tree.map(lambda x: x + 1, tree)

  mapped = devices_lib.mapped(
    add_one, precision='highest', options=options, donate_argnums=0
  )
  first = tree = devices_lib.replicate(TREE)
  for _ in range(3):
    tree = mapped(tree)
  assert len(traces) == 1
  assert first['a'].is_deleted()
  np.testing.assert_array_equal(
    devices_lib.unreplicate(tree)['a'], TREE['a'] + 3
  )


@on_cpu
def test_options_reach_the_compiler():
  mapped = devices_lib.mapped(
    lambda x: x + 1, precision='highest', options={'xla_no_such_option': ''}
  )
  with pytest.raises(jax.errors.JaxRuntimeError, match='xla_no_such_option'):
    mapped(np.zeros(jax.device_count()))


@on_cpu
def test_training_and_evaluation_use_the_lean_options(monkeypatch):
  found = []
  monkeypatch.setattr(
    devices_lib, 'mapped', lambda fn, *, options, **_: found.append(options)
  )
  step.mapped.__wrapped__(
    stage=None, nets=(), tx=None, options=None, precision='', device=None
  )
  predictor._mapped.__wrapped__(
    (),
    size=0,
    window=(),
    coarse_mask='',
    strategy='',
    precision='',
    device=None,
  )
  assert found == [devices_lib.lean_options()] * 2 and found[0]
