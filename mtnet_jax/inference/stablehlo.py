"""Exports a trained model to StableHLO, which runs without this package."""

import datetime
import pathlib

import jax
from jax import export as jax_export
import jax.numpy as jnp

import mtnet_jax
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model as model_lib
from mtnet_jax.models import predictor
from mtnet_jax.ops import target
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors

PLATFORMS = ('cpu', 'cuda', 'tpu')
_PROGRAM, _WEIGHTS = 'mtnet.jax_export', 'weights.safetensors'
_README = """# {name}: StableHLO

{simulated}A program exported by `jax.export` on {date} with JAX {jax}
(mtnet_jax {version}), for {platforms}. **JAX guarantees to load it for about
six months after that version**: keep the run or bundle that it was exported
from.

```python
import pathlib

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = pathlib.Path({out!r})
program = export.deserialize(bytearray((folder / '{program}').read_bytes()))
weights = jax.device_put(load_file(folder / '{weights}'))


def predict(hu, pixel_spacing_mm):
  hu = np.asarray(hu, np.float32)  # (N, {size}, {size}) HU, not windowed
  spacing = np.broadcast_to(np.float32(pixel_spacing_mm), len(hu))
  return program.call(weights, hu, spacing)
```

The result is a dict: `mask` and `coarse_mask` (N, {size}, {size}) bool,
`probability` and the class activation map `cam` (N, {size}, {size}),
`malignancy` (N,). Each new N compiles again: pad batches to a few sizes. Unlike
a model of `mtnet_jax.load`, the program does not check its inputs.

Research software, not a medical device. "Malignancy" is the suspicion of
LIDC-IDRI's readers, not pathology.
"""


def export(model: model_lib.Model) -> jax_export.Exported:
  """Exports a model as one program for all platforms and any batch size.

  Returns:
    A program of three arguments: the weights as {'coarse/params/...': array},
    (b, 64, 64) float32 HU and (b,) float32 mm. It returns the dict of
    `predictor.as_answer`.
  """

  def predict(weights, hu, pixel_spacing_mm):
    outputs = model.predict_fn(tensors.nested(weights), hu, pixel_spacing_mm)
    return predictor.as_answer(outputs)

  (batch,) = jax_export.symbolic_shape('b')
  side = model_lib.PATCH_SIZE
  weights = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype)
    for name, x in tensors.flat(model.variables)
  }
  with target.portable():
    return jax_export.export(jax.jit(predict), platforms=PLATFORMS)(
      weights,
      jax.ShapeDtypeStruct((batch, side, side), jnp.float32),
      jax.ShapeDtypeStruct((batch,), jnp.float32),
    )


def write(
  model: model_lib.Model | ensemble.Ensemble,
  folder: pathlib.Path,
  *,
  name: str | pathlib.Path,
) -> None:
  """Writes the program, its weights and a README that shows how to call it.

  Args:
    model: model of one training; an average is refused.
    folder: an existing folder.
    name: path of the folder in the README's code.

  Raises:
    errors.InputError: the model is an average, or the folder is not writable.
  """
  if isinstance(model, ensemble.Ensemble):
    raise errors.InputError(
      f'{model.name} is an average of {len(model.models)} networks'
      f'{" and their symmetries" if model.symmetries else ""}, but a StableHLO'
      ' program holds one: use --format=pytorch or --format=onnx, or export a'
      ' run or bundle of one training.'
    )
  files.write_bytes(folder / _PROGRAM, export(model).serialize())
  tensors.write(folder / _WEIGHTS, jax.device_get(model.variables))
  files.write_text(
    folder / 'README.md',
    _README.format(
      name=model.name,
      simulated='Trained on SIMULATED CT. ' if model.simulated else '',
      date=datetime.date.today().isoformat(),
      jax=jax.__version__,
      version=mtnet_jax.__version__,
      platforms=', '.join(PLATFORMS),
      out=str(name),
      program=_PROGRAM,
      weights=_WEIGHTS,
      size=model_lib.PATCH_SIZE,
    ),
  )
