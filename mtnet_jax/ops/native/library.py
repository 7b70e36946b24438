"""Builds the C++ loops of this folder on first use, and calls them from JAX.

The loops support float32 on CPUs. They need a C++ compiler: `c++`, or the
command in the environment variable CXX. Without one, on other devices and with
MTNET_JAX_NATIVE=0, callers compute the same in JAX.

Each group of loops is one shared library. Building it takes a few seconds, once
per machine: it is kept in the user's cache, beside JAX's compiled programs. A
prediction needs only the group `forward` and does not wait for the other one.
"""

import atexit
from collections.abc import Sequence
import ctypes
import functools
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import threading

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from mtnet_jax.ops import target
from mtnet_jax.ops.native import compiler
from mtnet_jax.system import compilation_cache

# Group, which is a folder of sources -> the loops that they define.
_GROUPS = {
  'forward': ('conv3x3', 'separable'),
  'training': (
    'conv3x3_kernel_gradient',
    'depthwise_forward',
    'depthwise_backward',
    'moments',
    'gradient_sums',
  ),
}
# Each is held while its group is built, so that other threads wait for it.
_LOCKS = {group: threading.Lock() for group in _GROUPS}
# Without -ffast-math, which would lose infinities and NaNs.
_FLAGS = ('-std=c++17', '-O3', '-march=native', '-fPIC')


def supports(loop: str, *arrays: jax.Array) -> bool:
  """Whether a C++ loop can compute on these arrays in the current context.

  Builds or loads the loop's group if necessary.

  Args:
    loop: name of the loop.
    *arrays: its input arrays, or tracers of them.
  """
  return (
    target.is_this_cpu()
    and all(x.dtype == jnp.float32 for x in arrays)
    and _has(_group_of(loop))
  )


def call(
  name: str,
  shapes: Sequence[Sequence[int]],
  *arrays: jax.Array,
  **attributes: int,
) -> Sequence[jax.Array]:
  """Calls a C++ loop; `supports` must have been asked first.

  Args:
    name: name of the loop.
    shapes: shapes of the results.
    *arrays: float32 inputs.
    **attributes: integers, such as a stride.

  Returns:
    The float32 results.
  """
  results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  function = jax.ffi.ffi_call(
    f'mtnet_{name}', results, vmap_method='sequential'
  )
  # The loops read int64, regardless of JAX's default.
  return function(
    *arrays, **{key: np.int64(value) for key, value in attributes.items()}
  )


def loaded() -> bool:
  """Whether all loops could be built and loaded; prints the reason if not."""
  return all(map(_has, _GROUPS))


def build_ahead() -> None:
  """Starts to build the loops in the background."""
  if target.is_this_cpu():
    threading.Thread(target=loaded, daemon=True).start()


def _group_of(loop):
  (group,) = (name for name, loops in _GROUPS.items() if loop in loops)
  return group


def _has(group):
  """Whether a group of loops could be built and loaded."""
  with _LOCKS[group]:
    return _load(group)


@functools.cache
def _load(group):
  """Builds and loads a group of loops; prints the reason if it cannot."""
  if os.environ.get('MTNET_JAX_NATIVE') == '0':
    return False
  try:
    library = ctypes.CDLL(str(_path(group)))
    for loop in _GROUPS[group]:
      handler = jax.ffi.pycapsule(getattr(library, _symbol(loop)))
      jax.ffi.register_ffi_target(_symbol(loop), handler, platform='cpu')
  # Compilers, disks and caches fail in many ways. None of them is fatal, since
  # JAX can compute the same.
  except Exception as error:
    reason = getattr(error, 'stderr', None) or error
    _print(
      f'no C++ loops ({group}) on this CPU, so JAX computes the same, more'
      ' slowly. The loops need a C++ compiler: `c++`, or the command in the'
      ' environment variable CXX. Set MTNET_JAX_NATIVE=0 to run without them'
      ' and without this message. The error was:'
      f' {str(reason).strip()[:1000] or type(error).__name__}'
    )
    return False
  return True


def _symbol(loop):
  return f'mtnet_{loop}'


def _print(text):
  print(f'mtnet_jax: {text}', file=sys.stderr, flush=True)


def _path(group):
  """Returns the path of a group's library, and builds it if necessary.

  The file name ends in a digest of the content, which is compared with the
  file: loading a truncated or damaged library could crash this process.
  """
  folder = pathlib.Path(__file__).parent
  sources = sorted(folder.glob(f'{group}/*.cc'))
  headers = sorted(folder.glob('*.h'))
  caches = compilation_cache.folder('native') or _process_folder()
  words = compiler.command()
  # The predefined macros identify the compiler and the processor's features.
  # They are part of the key because different machines may share a cache.
  (macros,) = compiler.run(
    [[*words, *_FLAGS, '-dM', '-E', '-x', 'c++', os.devnull]]
  )
  parts = [jaxlib.__version__, *words, *_FLAGS, macros]
  key = hashlib.sha256(
    b'\0'.join(
      [os.fsencode(part) for part in parts]
      + [file.read_bytes() for file in sources + headers]
    )
  ).hexdigest()
  name = f'{group}-{key[:32]}'
  found = sorted(caches.glob(f'{name}-*'))
  for path in found:
    if path.name == _whole_name(name, path):
      return path
  if found:
    _print(f'{found[0]} is damaged; it will be replaced')
  _print(f'building C++ loops ({group}) for this CPU, once (about 5 s)')
  with tempfile.TemporaryDirectory(dir=caches) as staged:
    built = pathlib.Path(staged, f'{name}.so')
    objects = _compile(sources, folder, staged)
    compiler.run([[*words, '-shared', *objects, '-o', str(built)]])
    compiler.check(built, map(_symbol, _GROUPS[group]))
    path = caches / _whole_name(name, built)
    for damaged in found:
      _remove(damaged)
    built.replace(path)
  return path


def _whole_name(name, path):
  """Returns the file name that a library with this file's content must have."""
  try:
    if not path.is_file():  # Reading a pipe could block forever.
      return ''
    with path.open('rb') as file:
      content = file.read(compiler.MAX_BYTES + 1)
  except OSError:
    return ''
  return f'{name}-{hashlib.sha256(content).hexdigest()[:32]}.so'


def _remove(path):
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


@functools.cache
def _process_folder():
  """Returns a folder that is deleted when this process ends."""
  folder = tempfile.mkdtemp(prefix='mtnet_jax-native-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return pathlib.Path(folder)


def _compile(sources, folder, staged):
  """Compiles all sources at the same time, and returns their object files."""
  # JAX's headers are declared as system headers to suppress their warnings.
  folders = ('-I', str(folder), '-isystem', jax.ffi.include_dir())
  objects = [str(pathlib.Path(staged, f'{file.stem}.o')) for file in sources]
  compiler.run(
    [
      [*compiler.command(), *_FLAGS, *folders, '-c', str(source), '-o', made]
      for source, made in zip(sources, objects, strict=True)
    ]
  )
  return objects
