"""A trained model for PyTorch: weights, and one file of code that runs them."""

import datetime
import json

import mtnet_jax
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
# Fields that say how our networks compute, and not what.
_OURS_ALONE = ('axis_name', 'dtype')
_CODE_DOCSTRING = """MT-Net in PyTorch, for the weights beside this file.

Written by mtnet_jax {version} on {date}; Apache License 2.0. README.md says how
to use it.
"""
_README = """# {name}: PyTorch

{simulated}`weights.safetensors` holds the trained networks, under the names of
the public PyTorch weights of DeepLabv3+ (Coarse and Fine Seg-net) and of timm's
`legacy_xception` (Class-net). `mtnet.py` runs them and needs nothing but
PyTorch. Written on {date} by mtnet_jax {version}.

```python
import sys

import torch

folder = {out!r}  # Where this is.
sys.path.insert(0, folder)
import mtnet

model = mtnet.load(folder + '/weights.safetensors')


@torch.inference_mode()
def predict(hu, pixel_spacing_mm):
  hu = torch.as_tensor(hu, dtype=torch.float32)  # (N, {size}, {size}) HU
  spacing = torch.as_tensor(pixel_spacing_mm, dtype=torch.float32)
  return model(hu, spacing.expand(len(hu)))
```

The answer is a dict of tensors: `mask` and `coarse_mask` (N, {size}, {size})
bool, `probability` and the class activation map `cam` (N, {size}, {size}),
`malignancy` (N,). Unlike `mtnet_jax.load`, nothing checks the values: HU, not
windowed, the nodule in the middle, spacing in mm.
{average}
## Training on

Each of `model.members` has `coarse_net`, `class_net` and `fine_net`, ordinary
modules that take windowed CT, `model.images(hu, spacing)`, of two patches or
more, and answer with logits. Afterwards:

```python
model.settings['temperature'] = 1.0  # It was fitted to the former weights.
mtnet.save(model, 'trained.safetensors')
```

`mtnet.load('trained.safetensors')` reads it, and training in mtnet_jax starts
from it{first}:

    --config.pretrained.segmentation=trained.safetensors
    --config.pretrained.classification=trained.safetensors

Write it by `mtnet.save`: `torch.save` leaves out the settings (epsilon of batch
norms, range of the input), without which weights compute something else.

Research software, not a medical device. "Malignancy" is the suspicion of
LIDC-IDRI's readers, not pathology.
"""
_AVERAGE = """
It is the mean of {count} outputs: `malignancy_members` ({count}, N) has that of
each, `uncertainty` (N, {size}, {size}) the standard deviation of their
`probability`.
"""


def write(model, folder, *, name):
  """Writes the weights, the code and how to call it.

  Args:
    model: a `model.Model`, or an `ensemble.Ensemble` of such.
    folder: `pathlib.Path` of one that exists.
    name: what the README calls the folder.

  Raises:
    errors.InputError: it cannot be exported, or not be written.
  """
  arrays, described = arrays_and_settings(model)
  tensors.write(
    folder / WEIGHTS,
    arrays,
    metadata={'format': 'pt', exported.SETTINGS: json.dumps(described)},
  )
  made = {
    'version': mtnet_jax.__version__,
    'date': datetime.date.today().isoformat(),
  }
  code = single_file.source(_CODE_DOCSTRING.format(**made))
  files.write_text(folder / CODE, code)
  files.write_text(
    folder / 'README.md',
    _README.format(
      **made,
      name=model.name,
      simulated='Trained on SIMULATED CT. ' if model.simulated else '',
      size=model_lib.PATCH_SIZE,
      out=str(name),
      average=average_text(described),
      first=(
        ', of the average the first one' if described['members'] > 1 else ''
      ),
    ),
  )


def average_text(described):
  """What a README says of the arrays that an average has beside the others."""
  count = described['members'] * (8 if described['symmetries'] else 1)
  if count == 1:
    return ''
  return _AVERAGE.format(count=count, size=model_lib.PATCH_SIZE)


def arrays_and_settings(model):
  """Tensors by name, and the settings of `mtnet.MTNet`.

  Args:
    model: as in `write`.

  Raises:
    errors.InputError: PyTorch has no such network.
  """
  members = getattr(model, 'models', (model,))
  is_average = hasattr(model, 'models')
  if not all(hasattr(one, 'variables') for one in members):
    raise errors.InputError(
      f'{model.name} is an average of averages: export each by itself.'
    )
  networks = _networks(members[0].config)
  _check(networks, model.name)
  described = _described(members[0], networks)
  if is_average and any(
    one.temperature != 1 or _described(one, _networks(one.config)) != described
    for one in members
  ):
    raise errors.InputError(
      f'{model.name} is an average of models that differ in more than their'
      ' weights, or are calibrated one by one: export each by itself.'
    )
  if is_average and len(members) == 1 and not model.symmetries:
    raise errors.InputError(
      f'{model.name} is an average of one model: export that one.'
    )
  settings = {
    'name': model.name,
    'simulated': model.simulated,
    **described,
    'temperature': model.temperature,
    'symmetries': model.symmetries,
    'members': len(members),
  }
  arrays = {}
  for number, one in enumerate(members):
    variables = _by_network(one)
    for part, net in networks.items():
      found = exported.tensors(part, net, variables[part])
      prefix = f'members.{number}.{part}'
      arrays |= {f'{prefix}.{key}': value for key, value in found.items()}
  return arrays, settings


def _networks(config):
  """'coarse_net', ... -> network of a config."""
  return {
    f'{stage}_net': net
    for stage, net in nets.make_nets(config).items()
    if stage in nets.ORDER
  }


def _is_joint(config):
  return 'joint' in nets.names(config)


def _described(one, networks):
  """Settings that members of an average have in common."""
  config = one.config
  found = {
    'patch_size': model_lib.PATCH_SIZE,
    'image_size': config.image_size,
    'window': list(config.window),
    'spacing_mm': one.spacing_mm,
    # Joint training passes probabilities on, whatever the config says.
    'coarse_mask': 'soft' if _is_joint(config) else config.coarse_mask,
    **{part: _settings(net) for part, net in networks.items()},
  }
  for stage in ('coarse', 'fine'):
    inputs = strategies.STRATEGIES[config.strategy][stage].inputs
    found[f'{stage}_net']['maps'] = strategies.INPUTS[inputs].channels
  return found


def _by_network(one):
  """'coarse_net', ... -> {'params', 'batch_stats'} of a model."""
  if not _is_joint(one.config):
    return {f'{stage}_net': one.variables[stage] for stage in nets.ORDER}
  joint = one.variables['joint']
  return {
    f'{stage}_net': {key: tree[f'{stage}_net'] for key, tree in joint.items()}
    for stage in nets.ORDER
  }


def _settings(net):
  """Arguments of a network in PyTorch: all fields of ours that it has."""
  kind = deeplab.DeepLabV3Plus
  if isinstance(net, mtnet.ClassNet):
    kind = mtnet.ClassNet
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in sorted(layers.fields_of(net, kind).items())
    if name not in _OURS_ALONE
  }


def _check(networks, name):
  """Raises where the public names have no place for a network's layers."""
  for part, net in networks.items():
    if len(net.stem_widths) != 2:
      raise errors.InputError(
        f'{name}: {part} begins with {len(net.stem_widths)} plain'
        ' convolutions, and PyTorch has names for 2: export it as StableHLO.'
      )
