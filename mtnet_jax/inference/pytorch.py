"""Exports a trained model to PyTorch: weights and one file that runs them."""

from collections.abc import Mapping
import datetime
import json
import pathlib
from typing import Any

from flax import linen as nn
import numpy as np

import mtnet_jax
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model as model_lib
from mtnet_jax.inference.torch import single_file
from mtnet_jax.models import deeplab
from mtnet_jax.models import layers
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets
from mtnet_jax.models import strategies
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors
from mtnet_jax.weights import exported

WEIGHTS, CODE = 'weights.safetensors', 'mtnet.py'
# Fields of the Flax networks that PyTorch's lack.
_FLAX_ONLY = ('axis_name', 'dtype')
_CODE_DOCSTRING = """MT-Net in PyTorch, for the weights beside this file.

Written by mtnet_jax {version} on {date}; Apache License 2.0. README.md shows
how to use it.
"""
_README = """# {name}: PyTorch

{simulated}`weights.safetensors` holds the trained networks, under the names of
the public PyTorch weights of DeepLabv3+ (Coarse and Fine Seg-net) and of timm's
`legacy_xception` (Class-net). `mtnet.py` runs them and needs only PyTorch.
Written on {date} by mtnet_jax {version}.

```python
import sys

import torch

folder = {out!r}  # The path of this folder.
sys.path.insert(0, folder)
import mtnet

model = mtnet.load(folder + '/weights.safetensors')


@torch.inference_mode()
def predict(hu, pixel_spacing_mm):
  hu = torch.as_tensor(hu, dtype=torch.float32)  # (N, {size}, {size}) HU
  spacing = torch.as_tensor(pixel_spacing_mm, dtype=torch.float32)
  return model(hu, spacing.expand(len(hu)))
```

The result is a dict of tensors: `mask` and `coarse_mask` (N, {size}, {size})
bool, `probability` and the class activation map `cam` (N, {size}, {size}),
`malignancy` (N,). Unlike a model of `mtnet_jax.load`, this one does not check
values: pass HU that are not windowed, with the nodule at the centre of each
patch, and the spacing in mm.
{average}
## Fine-tuning

Each of `model.members` has `coarse_net`, `class_net` and `fine_net`, ordinary
modules that map windowed CT, `model.images(hu, spacing)`, to logits. In
training mode they need at least two patches. To save the result:

```python
model.settings['temperature'] = 1.0  # It was fitted to the old weights.
mtnet.save(model, 'trained.safetensors')
```

`mtnet.load('trained.safetensors')` loads it, and training in mtnet_jax can
start from it{first}:

    --config.pretrained.segmentation=trained.safetensors
    --config.pretrained.classification=trained.safetensors

Use `mtnet.save`: `torch.save` omits the settings (epsilon of batch norms, range
of the input), without which the same weights give other results.

Research software, not a medical device. "Malignancy" is the suspicion of
LIDC-IDRI's readers, not pathology.
"""
_AVERAGE = """
The model averages {num_outputs} outputs. Two more arrays show how they differ:
`malignancy_members` ({num_outputs}, N), the `malignancy` of each, and
`uncertainty` (N, {size}, {size}), the standard deviation of their
`probability`.
"""


def write(
  model: model_lib.Model | ensemble.Ensemble,
  folder: pathlib.Path,
  *,
  name: str | pathlib.Path,
) -> None:
  """Writes the weights, the code and a README that shows how to call it.

  Args:
    model: a model, or an average of models.
    folder: an existing folder.
    name: path of the folder in the README's code.

  Raises:
    errors.InputError: the model cannot be exported, or the folder is not
      writable.
  """
  arrays, settings = arrays_and_settings(model)
  tensors.write(
    folder / WEIGHTS,
    arrays,
    metadata={'format': 'pt', exported.SETTINGS: json.dumps(settings)},
  )
  origin = {
    'version': mtnet_jax.__version__,
    'date': datetime.date.today().isoformat(),
  }
  code = single_file.source(_CODE_DOCSTRING.format(**origin))
  files.write_text(folder / CODE, code)
  files.write_text(
    folder / 'README.md',
    _README.format(
      **origin,
      name=model.name,
      simulated='Trained on SIMULATED CT. ' if model.simulated else '',
      size=model_lib.PATCH_SIZE,
      out=str(name),
      average=average_text(settings),
      first=(
        ' (from the first member of the average)'
        if settings['members'] > 1
        else ''
      ),
    ),
  )


def average_text(settings: Mapping[str, Any]) -> str:
  """Returns the README's paragraph on averages; '' for a single output."""
  num_outputs = settings['members'] * (8 if settings['symmetries'] else 1)
  if num_outputs == 1:
    return ''
  return _AVERAGE.format(num_outputs=num_outputs, size=model_lib.PATCH_SIZE)


def arrays_and_settings(
  model: model_lib.Model | ensemble.Ensemble,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Returns the state dict and the settings of `mtnet.MTNet`.

  Args:
    model: a model, or an average of models.

  Raises:
    errors.InputError: PyTorch's networks cannot represent the model.
  """
  is_average = isinstance(model, ensemble.Ensemble)
  parts = model.models if isinstance(model, ensemble.Ensemble) else (model,)
  members = [part for part in parts if isinstance(part, model_lib.Model)]
  if len(members) < len(parts):
    raise errors.InputError(
      f'{model.name} is an average of averages: export each by itself.'
    )
  networks = _networks(members[0].config)
  _check(networks, model.name)
  common = _common_settings(members[0], networks)
  if is_average and any(
    member.temperature != 1
    or _common_settings(member, _networks(member.config)) != common
    for member in members
  ):
    raise errors.InputError(
      f'{model.name} is an average of models that differ in more than their'
      ' weights, or are calibrated one by one: export each by itself.'
    )
  if is_average and len(members) == 1 and not model.symmetries:
    raise errors.InputError(
      f'{model.name} is an average of one model: export that model.'
    )
  settings = {
    'name': model.name,
    'simulated': model.simulated,
    **common,
    'temperature': model.temperature,
    'symmetries': model.symmetries,
    'members': len(members),
  }
  arrays: dict[str, np.ndarray] = {}
  for i, member in enumerate(members):
    variables = _variables_of_networks(member)
    for part, net in networks.items():
      state = exported.tensors(part, net, variables[part])
      prefix = f'members.{i}.{part}'
      arrays |= {f'{prefix}.{key}': value for key, value in state.items()}
  return arrays, settings


def _networks(config):
  """Returns {'coarse_net': network, ...} of a config."""
  return {
    f'{stage}_net': net
    for stage, net in nets.make_nets(config).items()
    if stage in nets.ORDER
  }


def _is_joint(config):
  return 'joint' in nets.names(config)


def _common_settings(
  model: model_lib.Model, networks: Mapping[str, nn.Module]
) -> dict[str, Any]:
  """Returns the settings that all members of an average must share."""
  config = model.config
  settings = {
    'patch_size': model_lib.PATCH_SIZE,
    'image_size': config.image_size,
    'window': list(config.window),
    'spacing_mm': model.spacing_mm,
    # A joint network passes probabilities regardless of the config.
    'coarse_mask': 'soft' if _is_joint(config) else config.coarse_mask,
    **{part: _fields(net) for part, net in networks.items()},
  }
  for stage in ('coarse', 'fine'):
    inputs = strategies.STRATEGIES[config.strategy][stage].inputs
    settings[f'{stage}_net']['maps'] = strategies.INPUTS[inputs].channels
  return settings


def _variables_of_networks(model):
  """Returns {'coarse_net': {'params', 'batch_stats'}, ...} of a model."""
  if not _is_joint(model.config):
    return {f'{stage}_net': model.variables[stage] for stage in nets.ORDER}
  joint = model.variables['joint']
  return {
    f'{stage}_net': {key: tree[f'{stage}_net'] for key, tree in joint.items()}
    for stage in nets.ORDER
  }


def _fields(net: nn.Module) -> dict[str, Any]:
  """Returns the constructor arguments of a network's PyTorch counterpart."""
  kind: type[nn.Module] = deeplab.DeepLabV3Plus
  if isinstance(net, mtnet.ClassNet):
    kind = mtnet.ClassNet
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in sorted(layers.fields_of(net, kind).items())
    if name not in _FLAX_ONLY
  }


def _check(networks, name):
  """Raises `errors.InputError` if the public names cannot name all layers."""
  for part, net in networks.items():
    if len(net.stem_widths) != 2:
      raise errors.InputError(
        f'{name}: {part} begins with {len(net.stem_widths)} plain'
        ' convolutions, but the names of PyTorch weights allow 2: export it as'
        ' StableHLO.'
      )
