"""Builds the C++ loops of this folder on first use, and calls them from JAX.

They serve float32 on a CPU, where this machine has a C++ compiler (`c++`, or
what CXX names). Elsewhere, and with MTNET_JAX_NATIVE=0, callers compute the
same in JAX. Building takes some seconds, once per machine: the library is kept
in the user's cache, beside the compiled programs.
"""

import concurrent.futures
import ctypes
import functools
import hashlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from mtnet_jax.ops import target
from mtnet_jax.system import compilation_cache

_LOOPS = (
  'conv3x3',
  'conv3x3_kernel_gradient',
  'depthwise_forward',
  'depthwise_backward',
  'moments',
  'gradient_sums',
  'separable',
)
# Not -ffast-math: infinities and NaNs must arrive.
_FLAGS = ('-std=c++17', '-O3', '-march=native', '-fPIC')


def supports(*arrays):
  """Whether these can go to the C++ loops, from where this is called.

  Args:
    *arrays: arrays, or tracers of them.
  """
  return (
    target.is_this_cpu()
    and all(x.dtype == jnp.float32 for x in arrays)
    and loaded()
  )


def call(name, shapes, *arrays, **attributes):
  """Calls a loop, which `supports` these arrays.

  Args:
    name: of the handler, without its prefix.
    shapes: of the results, float32.
    *arrays: float32.
    **attributes: integers.

  Returns:
    A list of arrays.
  """
  results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  function = jax.ffi.ffi_call(
    f'mtnet_{name}', results, vmap_method='sequential'
  )
  # The loops read int64, regardless of JAX's default.
  return function(
    *arrays, **{key: np.int64(value) for key, value in attributes.items()}
  )


@functools.cache
def loaded():
  """Whether the library could be built and loaded; says why where not."""
  if os.environ.get('MTNET_JAX_NATIVE') == '0':
    return False
  try:
    library = _open(_path())
    for loop in _LOOPS:
      name = f'mtnet_{loop}'
      handler = jax.ffi.pycapsule(getattr(library, name))
      jax.ffi.register_ffi_target(name, handler, platform='cpu')
  except (OSError, subprocess.SubprocessError) as error:
    reason = getattr(error, 'stderr', None) or error
    _say(
      'no C++ loops on this CPU, JAX computes the same more slowly. They need a'
      f' C++ compiler, `c++` or what CXX names; MTNET_JAX_NATIVE=0 does without'
      f' and says nothing. What went wrong: {str(reason).strip()[:1000]}'
    )
    return False
  return True


def _open(path):
  try:
    return ctypes.CDLL(str(path))
  except OSError:
    # The next process builds it anew.
    path.unlink(missing_ok=True)
    raise


def _say(text):
  print(f'mtnet_jax: {text}', file=sys.stderr, flush=True)


def _compiler():
  return shlex.split(os.environ.get('CXX', 'c++'))


def _run(*command):
  return subprocess.run(
    [*_compiler(), *command],
    check=True,
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
  ).stdout


def _path():
  """The library's file, built where it is not there yet."""
  folder = pathlib.Path(__file__).parent
  sources = [*map(str, sorted(folder.glob('*.cc')))]
  headers = [*map(str, sorted(folder.glob('*.h')))]
  # The macros name the compiler and what the processor can do: machines that
  # differ may share a home.
  macros = _run(*_FLAGS, '-dM', '-E', '-x', 'c++', os.devnull)
  key = hashlib.sha256(
    '\0'.join(
      [jaxlib.__version__, *_compiler(), *_FLAGS, macros]
      + [pathlib.Path(file).read_text() for file in sources + headers]
    ).encode()
  ).hexdigest()
  caches = compilation_cache.default_dir().parent / 'native'
  path = caches / f'{key[:32]}.so'
  if not path.exists():
    _say('building loops for this CPU, once (some 10 s)')
    caches.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=caches) as staged:
      built = pathlib.Path(staged, path.name)

      def compiled(source, staged=staged):
        object_file = pathlib.Path(staged, pathlib.Path(source).stem + '.o')
        # Foreign headers come as the system's, whose warnings nobody reads.
        headers = ('-isystem', jax.ffi.include_dir())
        _run(*_FLAGS, *headers, '-c', source, '-o', str(object_file))
        return str(object_file)

      # A compiler uses one core, and somebody waits for the first prediction.
      with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
      _run('-shared', *objects, '-o', str(built))
      built.replace(path)
  return path
