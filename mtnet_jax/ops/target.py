"""Which machine it is that a traced program will run on.

Most forms are chosen where a program is lowered (`common.choose`). Some can be
traced only where it is known that they will run: loops in C++, which must have
been built, and kernels that are compiled for a card.
"""

import contextlib
import functools
import os

import jax

_HERE, _PORTABLE, _CUDA = 'here', 'portable', 'cuda'

# JAX keys its caches of programs by this value, so that a portable program and
# one for this machine are never mistaken for each other.
_target = jax.make_user_context(_HERE)


@contextlib.contextmanager
def portable():
  """Everything traced inside runs on any machine, as `jax.export` needs it."""
  with _target(_PORTABLE):
    yield


@contextlib.contextmanager
def cuda():
  """Everything traced inside may be for one of NVIDIA's GPUs, here or not."""
  with _target(_CUDA):
    yield


def is_this_cpu():
  """Whether what is traced here is for this machine's CPU alone."""
  return _target.value == _HERE and jax.default_backend() == 'cpu'


def may_be_cuda():
  """Whether what is traced here may be lowered for NVIDIA's GPUs and may have
  kernels of our own, which MTNET_JAX_TRITON=0 forbids.
  """
  if _target.value == _PORTABLE or os.environ.get('MTNET_JAX_TRITON') == '0':
    return False
  return _target.value == _CUDA or _has_cuda()


@functools.cache
def _has_cuda():
  return any(
    'cuda' in device.client.platform_version.lower() for device in jax.devices()
  )
