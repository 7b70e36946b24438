"""A trained model as an ONNX program, through PyTorch's exporter."""

import contextlib
import datetime
import importlib.util
import json
import logging
import warnings

import mtnet_jax
from mtnet_jax.inference import model as model_lib
from mtnet_jax.inference import pytorch
from mtnet_jax.storage import files
from mtnet_jax.system import errors

PROGRAM = 'mtnet.onnx'
INPUTS = ('hu', 'pixel_spacing_mm')
_NEEDED = ('torch', 'onnx', 'onnxscript')
# A file of ONNX has at most 2 GB; weights beyond lie in one beside it.
_MAX_BYTES = 1_900_000_000
_README = """# {name}: ONNX

{simulated}`{program}` holds the trained networks with all that comes before and
after them, for any number of patches. Written on {date} by mtnet_jax {version}
and PyTorch {torch}.

```python
import pathlib

import numpy as np
import onnxruntime

folder = pathlib.Path({out!r})  # Where this folder is.
session = onnxruntime.InferenceSession(folder / '{program}')
names = [output.name for output in session.get_outputs()]


def predict(hu, pixel_spacing_mm):
  hu = np.asarray(hu, np.float32)  # (N, {size}, {size}) HU, not windowed
  spacing = np.broadcast_to(np.float32(pixel_spacing_mm), len(hu))
  arrays = session.run(None, {{'hu': hu, 'pixel_spacing_mm': spacing}})
  return dict(zip(names, arrays))
```

The answer is a dict of arrays: `mask` and `coarse_mask` (N, {size}, {size})
bool, `probability` and the class activation map `cam` (N, {size}, {size}),
`malignancy` (N,). Unlike `mtnet_jax.load`, nothing checks the inputs.
{average}
Research software, not a medical device. "Malignancy" is the suspicion of
LIDC-IDRI's readers, not pathology.
"""


def check_packages():
  """Raises `errors.InputError` where a package that writes ONNX is missing."""
  missing = [name for name in _NEEDED if not importlib.util.find_spec(name)]
  if missing:
    raise errors.InputError(
      f'--format=onnx needs {", ".join(missing)}: pip install'
      " 'mtnet_jax[onnx]'."
    )


def write(model, folder, *, name):
  """Writes the program and how to call it; arguments as in `pytorch.write`.

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


def _program(arrays, settings):
  """The `torch.onnx.ONNXProgram` of a model, whose arrays it takes away."""
  import torch

  from mtnet_jax.inference.torch import folding
  from mtnet_jax.inference.torch import mtnet

  side = model_lib.PATCH_SIZE
  batch = torch.export.Dim('batch')
  model = mtnet.MTNet(settings).eval()
  with _quiet():
    # Assigned, not copied: the paper's networks have half a gigabyte.
    model.load_state_dict(
      {name: torch.from_numpy(value) for name, value in arrays.items()},
      assign=True,
    )
    arrays.clear()
    for networks in model.members:
      # Any size shows which layer follows which.
      folding.fold_batch_norms(networks, torch.zeros(1, 3, side, side))
    return torch.onnx.export(
      model,
      (torch.zeros(2, side, side), torch.ones(2)),
      dynamo=True,
      input_names=INPUTS,
      output_names=model.answers,
      dynamic_shapes=({0: batch}, {0: batch}),
      verbose=False,
    )


@contextlib.contextmanager
def _quiet():
  """Without what PyTorch says of its own packages, and of arrays of JAX's."""
  logger = logging.getLogger('torch.onnx')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)
