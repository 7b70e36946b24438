"""Runs an exported model as its own README describes.

    python -m benchmarks.gpu.exported FOLDER PATCHES OUT

PATCHES is an .npz file with `hu` and `spacing`. The answer is written to OUT,
also an .npz file. Nothing of mtnet_jax is imported.
"""

import pathlib
import sys

import jax
from jax import export
import numpy as np
from safetensors import numpy as safetensors


def main(folder, patches, out):
  """Runs the command; the arguments are paths."""
  folder = pathlib.Path(folder)
  program = export.deserialize(
    bytearray((folder / 'mtnet.jax_export').read_bytes())
  )
  weights = jax.device_put(
    safetensors.load_file(folder / 'weights.safetensors')
  )
  with np.load(patches) as inputs:
    hu = inputs['hu'].astype(np.float32)
    spacing = np.broadcast_to(inputs['spacing'].astype(np.float32), len(hu))
  np.savez(out, **jax.device_get(program.call(weights, hu, spacing)))


if __name__ == '__main__':
  main(*sys.argv[1:])
