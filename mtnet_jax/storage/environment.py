"""Describes the software and the hardware of this process, for records."""

import importlib.metadata
import platform
from typing import Any

import jax

import mtnet_jax
from mtnet_jax.system import devices

_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def versions() -> dict[str, str]:
  """Returns the versions of Python and the main packages, by name."""
  return {
    'mtnet_jax': mtnet_jax.__version__,
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
  }


def hardware() -> dict[str, Any]:
  """Returns the kind and number of devices, and the number of processes."""
  device = jax.devices()[0]
  return {
    'platform': device.platform,
    'kind': device.device_kind,
    'devices': devices.device_count(),
    'processes': jax.process_count(),
  }
