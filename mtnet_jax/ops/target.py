"""Knows which kind of machine a traced program will run on.

JAX chooses most forms when it lowers a program (`common.choose`). Others may be
traced only if the program will run on this machine: the C++ loops, which are
built for its processor, and GPU kernels, which are compiled for its GPU.
"""

from collections.abc import Iterator
import contextlib
import functools
import os

import jax

_HERE, _PORTABLE, _CUDA = 'here', 'portable', 'cuda'

# JAX includes this value in the keys of its program caches, so that it never
# mistakes a portable program for one of this machine.
_target = jax.make_user_context(_HERE)


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """Programs traced inside run on any machine, as `jax.export` requires."""
  with _target(_PORTABLE):
    yield


@contextlib.contextmanager
def cuda() -> Iterator[None]:
  """Programs traced inside may contain our GPU kernels for NVIDIA GPUs.

  This holds even if this machine has no such GPU.
  """
  with _target(_CUDA):
    yield


def is_this_cpu() -> bool:
  """Whether a program traced now will run on this machine's CPU only."""
  return _target.value == _HERE and jax.default_backend() == 'cpu'


def may_be_cuda() -> bool:
  """Whether a program traced now may contain our GPU kernels for NVIDIA GPUs.

  Setting MTNET_JAX_TRITON=0 forbids them.
  """
  if _target.value == _PORTABLE or os.environ.get('MTNET_JAX_TRITON') == '0':
    return False
  return _target.value == _CUDA or _has_cuda()


@functools.cache
def _has_cuda():
  return any(
    'cuda' in device.client.platform_version.lower() for device in jax.devices()
  )
