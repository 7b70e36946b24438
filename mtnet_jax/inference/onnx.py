"""Exports a trained model to ONNX, through PyTorch's exporter."""

from collections.abc import Iterator
import contextlib
import datetime
import importlib.util
import json
import logging
import pathlib
from typing import TYPE_CHECKING
from typing import Any
import warnings

import numpy as np

import mtnet_jax
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model as model_lib
from mtnet_jax.inference import pytorch
from mtnet_jax.storage import files
from mtnet_jax.system import errors

if TYPE_CHECKING:
  import torch.onnx

PROGRAM = 'mtnet.onnx'
INPUTS = ('hu', 'pixel_spacing_mm')
_REQUIRED = ('torch', 'onnx', 'onnxscript')
# An ONNX file holds at most 2 GB; larger weights go into a second file.
_MAX_BYTES = 1_900_000_000
_README = """# {name}: ONNX

{simulated}`{program}` holds the trained networks with their pre- and
postprocessing, for any number of patches. Written on {date} by mtnet_jax
{version} and PyTorch {torch}.

```python
import pathlib

import numpy as np
import onnxruntime

folder = pathlib.Path({out!r})  # The path of this folder.
session = onnxruntime.InferenceSession(folder / '{program}')
names = [output.name for output in session.get_outputs()]


def predict(hu, pixel_spacing_mm):
  hu = np.asarray(hu, np.float32)  # (N, {size}, {size}) HU, not windowed
  spacing = np.broadcast_to(np.float32(pixel_spacing_mm), len(hu))
  arrays = session.run(None, {{'hu': hu, 'pixel_spacing_mm': spacing}})
  return dict(zip(names, arrays))
```

The result is a dict of arrays: `mask` and `coarse_mask` (N, {size}, {size})
bool, `probability` and the class activation map `cam` (N, {size}, {size}),
`malignancy` (N,). Unlike a model of `mtnet_jax.load`, the program does not
check its inputs.
{average}
Research software, not a medical device. "Malignancy" is the suspicion of
LIDC-IDRI's readers, not pathology.
"""


def check_packages() -> None:
  """Raises `errors.InputError` if a package that writes ONNX is missing."""
  missing = [name for name in _REQUIRED if not importlib.util.find_spec(name)]
  if missing:
    raise errors.InputError(
      f'--format=onnx needs {", ".join(missing)}: pip install'
      " 'mtnet_jax[onnx]'."
    )


def write(
  model: model_lib.Model | ensemble.Ensemble,
  folder: pathlib.Path,
  *,
  name: str | pathlib.Path,
) -> None:
  """Writes the program and a README; arguments as in `pytorch.write`.

  Raises:
    errors.InputError: a package is missing, or the model cannot be exported.
  """
  check_packages()
  import torch

  arrays, settings = pytorch.arrays_and_settings(model)
  is_large = sum(x.nbytes for x in arrays.values()) > _MAX_BYTES
  program = _program(arrays, settings)
  program.model.metadata_props['mtnet'] = json.dumps(settings)
  program.save(folder / PROGRAM, external_data=is_large)
  files.write_text(
    folder / 'README.md',
    _README.format(
      name=model.name,
      simulated='Trained on SIMULATED CT. ' if model.simulated else '',
      program=PROGRAM,
      date=datetime.date.today().isoformat(),
      version=mtnet_jax.__version__,
      torch=torch.__version__.partition('+')[0],
      out=str(name),
      size=model_lib.PATCH_SIZE,
      average=pytorch.average_text(settings),
    ),
  )


def _program(
  arrays: dict[str, np.ndarray], settings: dict[str, Any]
) -> 'torch.onnx.ONNXProgram':
  """Exports a model, and clears `arrays` to save memory."""
  import torch

  from mtnet_jax.inference.torch import folding
  from mtnet_jax.inference.torch import mtnet

  side = model_lib.PATCH_SIZE
  batch = torch.export.Dim('batch')
  model = mtnet.MTNet(settings).eval()
  with _quiet():
    # Assigned, not copied: the paper's networks take half a gigabyte.
    model.load_state_dict(
      {name: torch.from_numpy(value) for name, value in arrays.items()},
      assign=True,
    )
    arrays.clear()
    for networks in model.members:
      # The call only finds which layer follows which: its size is arbitrary.
      folding.fold_batch_norms(networks, torch.zeros(1, 3, side, side))
    program = torch.onnx.export(
      model,
      (torch.zeros(2, side, side), torch.ones(2)),
      dynamo=True,
      input_names=INPUTS,
      output_names=model.output_names,
      dynamic_shapes=({0: batch}, {0: batch}),
      verbose=False,
    )
  assert program is not None  # The dynamo exporter always returns one.
  return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides PyTorch's warnings, such as those about read-only JAX arrays."""
  logger = logging.getLogger('torch.onnx')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)
