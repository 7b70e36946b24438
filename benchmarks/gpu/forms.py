"""Part forms: times implementations of depthwise 3 x 3 convolutions.

The implementations ("forms") are (a) XLA's fused shifted views, (b) the
library's grouped convolution, and (c) the one-pass kernels of
`mtnet_jax.ops.depthwise_triton` with several tile sizes, all at the shapes of
the networks. One program runs a form on several inputs, so that no input is in
the card's cache and the launch of the program does not count.
"""

import concurrent.futures
import functools
import time

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import depthwise
from mtnet_jax.ops import depthwise_triton
from mtnet_jax.ops import tiles

# (B, H, W, C), stride and dilation, those that take longest first. All are of
# Coarse Seg-net except the one with 109 pixels, which is of Class-net.
_SHAPES = (
  ((64, 112, 112, 128), 1, 1),
  ((64, 14, 14, 728), 1, 1),
  ((64, 112, 112, 128), 2, 1),
  ((64, 14, 14, 1536), 1, 2),
  ((64, 56, 56, 256), 1, 1),
  ((64, 28, 28, 728), 1, 1),
  ((64, 109, 109, 128), 1, 1),
)
_TINY = (((1, 8, 9, 16), 2, 1),)
_TINY_TILES = 2
_Tile = tiles.Tile
_FORWARD = (
  _Tile(4, 16),
  _Tile(2, 16),
  _Tile(8, 8),
  _Tile(1, 16, steps=14),
  _Tile(2, 16, steps=7),
  _Tile(4, 16, channels=32),
  _Tile(4, 16, channels=128, warps=8),
)
_BACKWARD = (
  _Tile(1, 16, steps=14),
  _Tile(1, 16, steps=14, warps=8),
  _Tile(1, 16, steps=28),
  _Tile(1, 16, channels=32, steps=14),
  _Tile(1, 16, channels=32, steps=14, warps=2),
  _Tile(1, 8, steps=14, warps=2),
  _Tile(2, 8, steps=7),
  _Tile(2, 16, steps=7, warps=8),
)
# Number of inputs of a program, and of its timed calls.
_INPUTS = 6
_CALLS = 5


def run(visit, config):
  """Times every form at every shape, and records a row for each.

  Args:
    visit: the `visit.Visit`.
    config: config of the command; unused.
  """
  del config
  interpret = jax.default_backend() == 'cpu'
  num_tiles = _TINY_TILES if visit.tiny else None
  for shape, stride, dilation in _TINY if visit.tiny else _SHAPES:
    if visit.remaining_s < 15:
      visit.record('forms', skipped=str(shape), reason='no time')
      continue
    steps = {'stride': stride, 'dilation': dilation}
    candidates = {
      'forward': _forward_forms(steps, _FORWARD[:num_tiles], interpret),
      'gradients': _gradient_forms(steps, _BACKWARD[:num_tiles], interpret),
    }
    _examine(visit, shape, steps, candidates)


def _examine(visit, shape, steps, candidates):
  x, kernel, grad = _arrays(shape, steps['stride'])
  arguments = {'forward': (x, kernel), 'gradients': (x, kernel, grad)}
  with concurrent.futures.ThreadPoolExecutor() as pool:
    programs = {
      (what, name): pool.submit(_compile, form, arguments[what])
      for what, forms in candidates.items()
      for name, form in forms.items()
    }
  truth = {
    what: jax.tree.leaves(
      _compile(candidates[what]['views'], _widened(arguments[what]), 1)(
        [_widened(arguments[what])]
      )
    )
    for what in candidates
  }
  for what in candidates:
    inputs = _several(arguments[what])
    moved = _bytes_moved(what, x, grad)
    for name in candidates[what]:
      found = {'shape': list(shape), **steps, 'what': what, 'form': name}
      try:
        program = programs[what, name].result()
        seconds, values = _time(program, inputs)
      except Exception as error:
        # A tile may need more memory than a multiprocessor has.
        visit.record('forms', **found, failed=str(error)[:200])
        continue
      visit.record(
        'forms',
        **found,
        ms=1e3 * seconds,
        gb_s=moved / seconds / 1e9,
        error=_error(values, truth[what]),
      )


def _arrays(shape, stride):
  batch, height, width, channels = shape
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16)

  out_hw = (-(-height // stride), -(-width // stride))
  return (
    draw(*shape),
    draw(3, 3, 1, channels),
    draw(batch, *out_hw, channels),
  )


def _widened(arrays):
  return tuple(x.astype(jnp.float32) for x in arrays)


def _forward_forms(steps, tiles_to_try, interpret):
  forms = {
    'views': depthwise.forms(**steps).other,
    'library': functools.partial(_library, **steps),
  }
  for tile in tiles_to_try:
    forms[_name(tile)] = functools.partial(
      depthwise_triton.conv, tile=tile, interpret=interpret, **steps
    )
  return forms


def _gradient_forms(steps, tiles_to_try, interpret):
  def gradients_of(form):
    return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

  forms = {
    'views': gradients_of(depthwise.forms(**steps).other),
    'library': gradients_of(functools.partial(_library, **steps)),
  }
  for tile in tiles_to_try:
    forms[_name(tile)] = functools.partial(
      depthwise_triton.gradients, tile=tile, interpret=interpret, **steps
    )
  return forms


def _name(tile):
  return (
    f'kernel {tile.rows}x{tile.columns}x{tile.channels}'
    f' steps {tile.steps} warps {tile.warps}'
  )


def _library(x, kernel, *, stride, dilation):
  """Convolves as `nn.Conv` does: on a GPU, by cuDNN."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((dilation, dilation), (dilation, dilation)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _compile(form, arguments, count=_INPUTS):
  """Compiles a program that applies `form` to `count` sets of arguments."""
  abstract = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments)
  program = jax.jit(lambda inputs: [form(*one) for one in inputs])
  return program.lower([abstract] * count).compile()


def _several(arguments):
  """Copies the arguments, so that each copy has its own memory."""
  return [tuple(jnp.copy(x) for x in arguments) for _ in range(_INPUTS)]


def _time(program, inputs):
  """Returns the median seconds of a form, and its first output."""
  values = jax.block_until_ready(program(inputs))[0]
  seconds = []
  for _ in range(_CALLS):
    started = time.perf_counter()
    jax.block_until_ready(program(inputs))
    seconds.append((time.perf_counter() - started) / len(inputs))
  return float(np.median(seconds)), values


def _bytes_moved(what, x, grad):
  """Returns the bytes to read and write at least; the kernel is negligible."""
  return x.nbytes + grad.nbytes + (x.nbytes if what == 'gradients' else 0)


def _error(values, truth):
  """Returns the largest relative distance from the float32 values."""
  return max(
    float(_distance(*pair))
    for pair in zip(jax.tree.leaves(values), truth, strict=True)
  )


@jax.jit
def _distance(found, true):
  # Computed on the device, because the arrays are large.
  difference = found.astype(jnp.float32) - true
  return jnp.linalg.norm(difference.ravel()) / jnp.linalg.norm(true.ravel())
