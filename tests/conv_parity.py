"""Compares two forms of a convolution, within proven error bounds.

With small integers, all products and sums are exact in float32, in any order.
Two forms that compute the same sums then agree to the last bit, and a tap that
is missing at a single pixel is noticed.

With real numbers, the error of a sum of n products, in any order, is at most
n u / (1 - n u) times the sum of their magnitudes, where u is the unit roundoff
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). A
bfloat16 result is the float32 result rounded once.
"""

import contextlib
import functools

import fast_compile
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import target
from mtnet_jax.ops.native import library

# Half the distance from 1 to the next number.
_UNIT = {'float32': 2.0**-24, 'bfloat16': 2.0**-8}


def xla_conv(x, kernel, *, stride=1, dilation=1, pad, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
    precision='highest',
  )


def assert_same(
  ours,
  reference,
  x_shape,
  kernel_shape,
  *,
  dtype='float32',
  optimized=False,
  seed=0,
):
  """Asserts that the output and both gradients of two forms agree.

  Args:
    ours: the form to test, (x, kernel) -> output.
    reference: the form to compare it with, in float32, on the same values.
    x_shape: NHWC.
    kernel_shape: HWIO.
    dtype: compute type of `ours`.
    optimized: whether the compiler optimises `ours`, which takes longer.
    seed: seed of the random values.
  """
  grad_shape = jax.eval_shape(
    reference,
    jax.ShapeDtypeStruct(x_shape, 'float32'),
    jax.ShapeDtypeStruct(kernel_shape, 'float32'),
  ).shape
  shapes = (x_shape, kernel_shape, grad_shape)

  def all_of(form, x, kernel, grad):
    out, pull = jax.vjp(form, x, kernel)
    return out, *pull(grad)

  ours, reference = (
    jax.jit(functools.partial(all_of, form), compiler_options=options)
    for form, options in (
      (ours, None if optimized else fast_compile.OPTIONS),
      (reference, fast_compile.OPTIONS),
    )
  )
  # With the C++ loops, and without them, as on a machine without a compiler.
  contexts = [contextlib.nullcontext()]
  if dtype == 'float32' and library.loaded():
    contexts.append(target.portable())
  for context in contexts:
    with context, jax.default_matmul_precision('highest'):
      _assert_integers_agree(ours, reference, shapes, dtype, seed)
      _assert_reals_agree(ours, reference, shapes, dtype, seed)


def _assert_integers_agree(ours, reference, shapes, dtype, seed):
  rng = np.random.default_rng(seed)
  values = [rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes]
  got = ours(*(jnp.asarray(value, dtype) for value in values))
  for name, result, expected in zip(
    ('output', 'x gradient', 'kernel gradient'),
    got,
    reference(*values),
    strict=True,
  ):
    assert result.dtype == dtype, name
    # The sums are exact, and a shorter type holds the nearest number.
    np.testing.assert_array_equal(
      np.asarray(result, np.float32),
      np.asarray(expected.astype(dtype), np.float32),
      err_msg=name,
    )


def _assert_reals_agree(ours, reference, shapes, dtype, seed):
  rng = np.random.default_rng(seed)
  values = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
  got = ours(*values)
  values = [value.astype(jnp.float32) for value in values]
  expected = reference(*values)
  magnitudes = reference(*map(jnp.abs, values))
  _, kernel_shape, grad_shape = shapes
  taps = kernel_shape[0] * kernel_shape[1]
  # Maximum number of products in each sum.
  terms = (
    taps * kernel_shape[2],
    taps * kernel_shape[3],
    grad_shape[0] * grad_shape[1] * grad_shape[2],
  )
  for name, result, truth, magnitude, n in zip(
    ('output', 'x gradient', 'kernel gradient'),
    got,
    expected,
    magnitudes,
    terms,
    strict=True,
  ):
    unit = _UNIT['float32']
    # Twice the bound, because both forms have rounding errors.
    bound = 2 * n * unit / (1 - n * unit) * np.asarray(magnitude, np.float64)
    if dtype != 'float32':
      bound = bound * 2 + _UNIT[dtype] * np.abs(truth)
    error = np.abs(np.asarray(result, np.float64) - truth)
    worst = np.max(error - bound, initial=-np.inf)
    assert worst <= 0, f'{name}: {worst} beyond the bound'
