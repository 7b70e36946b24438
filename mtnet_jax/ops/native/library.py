"""Builds the C++ loops of this folder on first use, and calls them from JAX.

They serve float32 on a CPU, where this machine has a C++ compiler (`c++`, or
what CXX names). Elsewhere, and with MTNET_JAX_NATIVE=0, callers compute the
same in JAX. Each group of loops is a library, which takes some seconds to
build, once per machine: it is kept in the user's cache, beside the compiled
programs. A prediction needs those of `forward/` and waits for no others.
"""

import atexit
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

# Folder -> the loops that its sources define.
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
# Held while a group is built, which others then wait for.
_LOCKS = {group: threading.Lock() for group in _GROUPS}
# Not -ffast-math: infinities and NaNs must arrive.
_FLAGS = ('-std=c++17', '-O3', '-march=native', '-fPIC')


def supports(loop, *arrays):
  """Whether these can go to a C++ loop, from where this is called.

  Args:
    loop: its name.
    *arrays: arrays, or tracers of them.
  """
  return (
    target.is_this_cpu()
    and all(x.dtype == jnp.float32 for x in arrays)
    and _has(_group_of(loop))
  )


def call(name, shapes, *arrays, **attributes):
  """Calls a loop that `supports` these arrays.

  Args:
    name: of the loop.
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


def loaded():
  """Whether all loops could be built and loaded; says why where not."""
  return all(map(_has, _GROUPS))


def build_ahead():
  """Begins to build the loops, while the caller does what needs no arrays."""
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
  """Builds and loads a group of loops; says why where it cannot."""
  if os.environ.get('MTNET_JAX_NATIVE') == '0':
    return False
  try:
    library = ctypes.CDLL(str(_path(group)))
    for loop in _GROUPS[group]:
      handler = jax.ffi.pycapsule(getattr(library, _symbol(loop)))
      jax.ffi.register_ffi_target(_symbol(loop), handler, platform='cpu')
  # A compiler, a disk or a cache fails in many ways, and JAX has all loops.
  except Exception as error:
    reason = getattr(error, 'stderr', None) or error
    _say(
      f'no C++ loops ({group}) on this CPU, JAX computes the same more slowly.'
      ' They need a C++ compiler, `c++` or what CXX names; MTNET_JAX_NATIVE=0'
      ' does without and says nothing. What went wrong:'
      f' {str(reason).strip()[:1000] or type(error).__name__}'
    )
    return False
  return True


def _symbol(loop):
  return f'mtnet_{loop}'


def _say(text):
  print(f'mtnet_jax: {text}', file=sys.stderr, flush=True)


def _path(group):
  """The library's file, built where it is not there, or not whole.

  Its name ends in the digest of what it holds: one that was cut or changed
  would end this process when it is loaded, without a word.
  """
  folder = pathlib.Path(__file__).parent
  sources = sorted(folder.glob(f'{group}/*.cc'))
  headers = sorted(folder.glob('*.h'))
  caches = compilation_cache.folder('native') or _of_this_process()
  words = compiler.command()
  # The macros name the compiler and what the processor can do: machines that
  # differ may share a home.
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
  there = sorted(caches.glob(f'{name}-*'))
  for path in there:
    if path.name == _whole_name(name, path):
      return path
  if there:
    _say(f'{there[0]} is damaged')
  _say(f'building C++ loops ({group}) for this CPU, once (some 5 s)')
  with tempfile.TemporaryDirectory(dir=caches) as staged:
    built = pathlib.Path(staged, f'{name}.so')
    objects = _compile(sources, folder, staged)
    compiler.run([[*words, '-shared', *objects, '-o', str(built)]])
    compiler.check(built, map(_symbol, _GROUPS[group]))
    path = caches / _whole_name(name, built)
    for damaged in there:
      _remove(damaged)
    built.replace(path)
  return path


def _whole_name(name, path):
  """What a library is called that holds what this file holds."""
  try:
    if not path.is_file():  # A pipe would have nobody who writes.
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
def _of_this_process():
  """A folder that is this process's own, and goes with it."""
  folder = tempfile.mkdtemp(prefix='mtnet_jax-native-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return pathlib.Path(folder)


def _compile(sources, folder, staged):
  """The object files of sources, each made by a compiler of its own.

  They run at the same time, since one uses one core and somebody waits. No
  threads: a process that ends would wait for these.
  """
  # Foreign headers come as the system's, whose warnings nobody reads.
  folders = ('-I', str(folder), '-isystem', jax.ffi.include_dir())
  objects = [str(pathlib.Path(staged, f'{file.stem}.o')) for file in sources]
  compiler.run(
    [
      [*compiler.command(), *_FLAGS, *folders, '-c', str(source), '-o', made]
      for source, made in zip(sources, objects, strict=True)
    ]
  )
  return objects
