"""The C++ loops: their results, threads, and fallback."""

import functools
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import main_job
import numpy as np
import pytest

from mtnet_jax.models import batch_norm
from mtnet_jax.ops import depthwise
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library

_needs_compiler = pytest.mark.skipif(
  not shutil.which(os.environ.get('CXX', 'c++')), reason='no C++ compiler'
)


def _draw(*shape):
  rng = np.random.default_rng(sum(shape))
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@_needs_compiler
def test_loops_are_available_with_a_compiler():
  assert library.loaded()
  assert library.supports('moments', _draw(1))
  assert not library.supports('moments', _draw(1).astype(jnp.bfloat16))
  with target.portable():
    assert not library.supports('moments', _draw(1))


def _calls(function, *arguments):
  return function.lower(*arguments).as_text().count('mtnet_')


@_needs_compiler
def test_a_portable_program_has_no_loops_though_another_is_cached():
  function = jax.jit(depthwise.conv)
  arguments = _draw(1, 5, 5, 2), _draw(3, 3, 1, 2)
  here = function(*arguments)
  assert _calls(function, *arguments)
  with target.portable():
    assert not _calls(function, *arguments)
    np.testing.assert_allclose(function(*arguments), here, rtol=1e-5, atol=1e-5)
  assert _calls(function, *arguments)


# The sizes give incomplete tasks and rows, and vectors of several lengths.
@pytest.mark.parametrize('pixels', ((1, 1, 1), (2, 13, 5), (3, 40, 31)))
@pytest.mark.parametrize('channels', (1, 7, 45))
def test_batch_norm_s_sums(pixels, channels):
  x, grad = _draw(*pixels, channels), _draw(channels, *pixels).T
  grad = grad.reshape(x.shape)
  mean = _draw(channels)
  got = (*batch_norm._moments(x), *batch_norm._gradient_sums(grad, x, mean))
  wide, wide_grad = np.asarray(x, np.float64), np.asarray(grad, np.float64)
  terms = (
    wide,
    wide * wide,
    wide_grad,
    wide_grad * (wide - np.asarray(mean, np.float64)),
  )
  for result, term in zip(got, terms, strict=True):
    # A task sums 128 pixels in float32 and the rest is in double, so fewer than
    # 200 operations round.
    bound = 200 * 2.0**-24 * np.abs(term).sum((0, 1, 2))
    error = np.abs(np.asarray(result, np.float64) - term.sum((0, 1, 2)))
    assert (error <= bound).all()


def test_nan_and_infinity_propagate():
  x = _draw(2, 9, 9, 3).at[0, 4, 4, 1].set(jnp.nan).at[1, 0, 0, 2].set(jnp.inf)
  kernel = jnp.ones((3, 3, 1, 3))
  out = np.asarray(jax.jit(depthwise.conv)(x, kernel))
  assert np.isnan(out[0, 3:6, 3:6, 1]).all()
  assert np.isnan(out).sum() == 9
  assert (out[1, :2, :2, 2] == np.inf).all()
  total, squares = batch_norm._moments(x)
  assert np.isnan(total).tolist() == [False, True, False]
  assert np.isinf(squares).tolist() == [False, False, True]


_BITS = """
import functools, hashlib, jax, jax.numpy as jnp, numpy as np, sys
from mtnet_jax.ops import common, conv, depthwise as depthwise_lib, folded
from mtnet_jax.ops import pointwise as pointwise_lib
from mtnet_jax.models import batch_norm
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library
def draw(*shape):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)
def all_of(x, depthwise, dense):
  y = depthwise_lib.conv(x, depthwise)
  y = batch_norm.normalise(y, jnp.ones(20), jnp.zeros(20), 1e-5, None)[0]
  y = depthwise_lib.conv(y, depthwise, stride=2)
  return jnp.sum(conv.conv(y, dense) ** 2)
arguments = draw(4, 61, 47, 20), draw(3, 3, 1, 20), draw(3, 3, 20, 33)
value, grads = jax.jit(jax.value_and_grad(all_of, (0, 1, 2)))(*arguments)
# Bands of rows are narrower where threads are more than images.
def one_by_one(x, depthwise, between, pointwise, after):
  x = jax.nn.relu(between(depthwise_lib.conv(x, depthwise)))
  return jax.nn.relu(after(pointwise_lib.conv(x, pointwise)))
folds = one_by_one
if library.loaded():
  folds = functools.partial(
    folded.separable_conv, relu_between=True, relu_after=True
  )
x, depthwise, dense = arguments
between = common.Affine(*draw(2, 20))
after = common.Affine(*draw(2, 33))
one = jax.jit(folds)(x[:1], depthwise, between, dense[:1, :1], after)
value += jnp.sum(one)
digest = hashlib.sha256()
for array in (value, *grads, one):
  digest.update(np.asarray(array).tobytes())
print(library.loaded(), digest.hexdigest(), float(value))
"""


def _bits(prefix=(), **env):
  done = main_job.run([*prefix, sys.executable, '-c', _BITS], **env)
  assert done.returncode == 0, done.stderr
  loaded, digest, value = done.stdout.split()
  return loaded == 'True', digest, float(value), done.stderr


_LOADED = """
from mtnet_jax.ops.native import library
library.build_ahead()
print(library.loaded())
"""


def _loaded(**env):
  """Returns whether a process has the loops, and its standard error."""
  done = main_job.run([sys.executable, '-c', _LOADED], **env)
  assert done.returncode == 0, done.stderr
  return done.stdout == 'True\n', done.stderr


@functools.cache
def _bits_by_default():
  return _bits()


@functools.cache
def _value_without_loops():
  loaded, _, value, stderr = _bits(MTNET_JAX_NATIVE='0')
  assert not loaded
  assert 'loops' not in stderr
  return value


@_needs_compiler
@pytest.mark.skipif(
  not shutil.which('taskset') or (os.cpu_count() or 1) < 2,
  reason='needs taskset and two cores',
)
def test_bits_do_not_depend_on_the_number_of_threads():
  loaded, one, *_ = _bits(('taskset', '-c', '0'))
  assert loaded
  assert _bits_by_default()[1] == one


@pytest.mark.slow
@pytest.mark.parametrize('compiler', ('g++', 'clang++'))
def test_compilers_agree(compiler, tmp_path):
  if not shutil.which(compiler):
    pytest.skip(f'no {compiler}')
  if _program(compiler) == _program(os.environ.get('CXX', 'c++')):
    # This compiler has already built the loops, which takes half a minute.
    loaded, _, value, stderr = _bits_by_default()
  else:
    loaded, _, value, stderr = _bits(CXX=compiler, XDG_CACHE_HOME=str(tmp_path))
  assert loaded, stderr
  assert value == pytest.approx(_value_without_loops(), rel=1e-5)


def _program(compiler):
  """Returns the file that a command such as `c++` is a link to."""
  return os.path.realpath(shutil.which(compiler) or compiler)


def test_without_a_compiler_jax_computes_the_same(tmp_path):
  *_, expected, _ = _bits_by_default()
  # The cache is empty, so the loops would have to be built.
  loaded, _, value, stderr = _bits(
    CXX='no-such-compiler', XDG_CACHE_HOME=str(tmp_path)
  )
  assert not loaded
  assert 'no C++ loops' in stderr and 'no-such-compiler' in stderr
  assert value == pytest.approx(expected, rel=1e-5)
  assert _value_without_loops() == pytest.approx(expected, rel=1e-5)


def test_the_compiler_s_error_is_printed(tmp_path):
  # One compiler fails, and the other one writes an empty library.
  bad = tmp_path / 'bad'
  bad.write_text('#!/bin/sh\necho out of paper >&2\nexit 1\n')
  empty = tmp_path / 'empty'
  empty.write_text(
    '#!/bin/sh\nfor last; do :; done\n[ "$last" = /dev/null ] || : > "$last"\n'
  )
  for script, message in ((bad, 'out of paper'), (empty, '.so')):
    script.chmod(0o755)
    loaded, stderr = _loaded(
      CXX=str(script), XDG_CACHE_HOME=str(tmp_path / 'caches')
    )
    assert not loaded
    assert message in stderr
    # Nothing is left that the next process would try to load.
    assert not [*tmp_path.rglob('*.so')]


@pytest.mark.slow
@_needs_compiler
def test_loops_are_built_once_and_then_loaded_without_a_message(tmp_path):
  # Building takes half a minute, so this compiler copies a library that was
  # built before. The name of its output starts with the group.
  built = {group: library._path(group) for group in library._GROUPS}
  compiler = tmp_path / 'compiler'
  compiler.write_text(
    '#!/bin/sh\nfor last; do :; done\n'
    'case "$last" in\n'
    + ''.join(
      f'*/{name}-*.so) cp {so} "$last";;\n' for name, so in built.items()
    )
    + '*.o) : > "$last";;\nesac\n'
  )
  compiler.chmod(0o755)
  env = {'CXX': str(compiler), 'XDG_CACHE_HOME': str(tmp_path)}
  loaded, first = _loaded(**env)
  assert loaded
  loaded, second = _loaded(**env)
  assert loaded
  # The main thread waits for the thread that builds ahead, and does not build.
  assert first.count('building') == len(library._GROUPS)
  assert 'building' not in second
  kept = [*(tmp_path / 'mtnet_jax' / 'native').iterdir()]
  assert sorted(map(_group, kept)) == sorted(library._GROUPS)


def _group(path):
  return path.name.partition('-')[0]


_PREDICTS = """
import mtnet_jax, numpy as np
mtnet_jax.load('lidc-small').predict(np.full((1, 64, 64), -700), 0.7)
"""


@pytest.mark.slow
@_needs_compiler
def test_a_prediction_does_not_build_the_loops_of_training(tmp_path):
  done = main_job.run(
    [sys.executable, '-c', _PREDICTS], XDG_CACHE_HOME=str(tmp_path)
  )
  assert done.returncode == 0, done.stderr
  assert [*map(_group, tmp_path.rglob('*.so'))] == ['forward']
