"""MT-Net in PyTorch: HU patches in, masks and malignancy out."""

from collections.abc import Iterator
from collections.abc import Mapping
import os
import pathlib
from typing import Any

import torch
from torch import nn

from mtnet_jax.inference.torch import deeplab
from mtnet_jax.inference.torch import layers
from mtnet_jax.inference.torch import patches
from mtnet_jax.inference.torch import tensor_file
from mtnet_jax.inference.torch import xception
from mtnet_jax.weights import exported_settings

THRESHOLD = 0.5
_NETWORK_OUTPUTS = ('coarse', 'class', 'fine', 'cam')
_OUTPUTS = ('mask', 'probability', 'malignancy', 'coarse_mask', 'cam')
_AVERAGE_OUTPUTS = ('malignancy_members', 'uncertainty')


class Networks(nn.Module):
  """The three networks of one training.

  Coarse Seg-net's mask is an input of Class-net and Fine Seg-net.

  Args:
    settings: settings of `MTNet`.

  Attributes:
    coarse_net, fine_net: `DeepLabV3Plus`.
    class_net: `ClassNet`.
  """

  def __init__(self, settings: Mapping[str, Any]):
    super().__init__()
    self.coarse_mask = settings['coarse_mask']
    self.fine_maps = settings['fine_net']['maps']
    self.coarse_net = deeplab.DeepLabV3Plus(**settings['coarse_net'])
    self.class_net = xception.ClassNet(**settings['class_net'])
    self.fine_net = deeplab.DeepLabV3Plus(**settings['fine_net'])

  def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps (B, 3, S, S) in [-1, 1] to logits.

    Returns:
      A dict: 'coarse' and 'fine' (B, 1, S, S), 'class' (B,), and the class
      activation map 'cam' (B, H', W').
    """
    coarse = self.coarse_net(images)
    mask = self.pass_mask(coarse)
    malignancy, cam = self.class_net(images, mask)
    maps = mask
    if self.fine_maps == 2:
      # The sigmoid bounds the activation map to [0, 1], like the mask.
      guidance = layers.resize(cam.sigmoid()[:, None], mask.shape[2:])
      maps = torch.cat([mask, guidance], 1)
    fine = self.fine_net(images, maps)
    return {'coarse': coarse, 'class': malignancy, 'cam': cam, 'fine': fine}

  def pass_mask(self, coarse_logits: torch.Tensor) -> torch.Tensor:
    """Turns coarse logits into the mask for the other nets, (B, 1, S, S)."""
    if self.coarse_mask == 'none':
      return torch.zeros_like(coarse_logits)
    probs = coarse_logits.sigmoid()
    if self.coarse_mask == 'soft':
      return probs
    return (probs >= THRESHOLD).to(probs.dtype)


class MTNet(nn.Module):
  """The networks of one training, or of several whose outputs are averaged.

  Args:
    settings: what the file of weights holds: `patch_size`, `image_size`,
      `window`, `spacing_mm` (None if patches keep the spacing of the scan),
      `coarse_mask` ('hard', 'soft' or 'none'), `temperature`, `symmetries`,
      `members`, and the arguments of the networks, `coarse_net`, `class_net`
      and `fine_net`.

  Raises:
    ValueError: a setting has a wrong value.

  Attributes:
    settings: the settings, in a dict that may be changed.
    members: the `Networks` of each training.
    output_names: keys of the dict that `forward` returns.
  """

  def __init__(self, settings: dict[str, Any]):
    super().__init__()
    exported_settings.check_settings(settings)
    self.settings = settings
    self.members = nn.ModuleList(
      Networks(settings) for _ in range(settings['members'])
    )
    self._is_average = settings['members'] > 1 or settings['symmetries']
    self.output_names = (
      *_OUTPUTS,
      *(_AVERAGE_OUTPUTS if self._is_average else ()),
    )

  def images(
    self, hu: torch.Tensor, pixel_spacing_mm: torch.Tensor
  ) -> torch.Tensor:
    """Turns (N, P, P) HU and (N,) mm into the networks' input, (N, 3, S, S)."""
    dtype = self.members[0].get_parameter('class_net.fc.weight').dtype
    # HU may be integers, and half precision cannot represent them all.
    hu, pixel_spacing_mm = (_wide(x, dtype) for x in (hu, pixel_spacing_mm))
    if self.settings['spacing_mm']:
      hu = patches.resample(hu, self.settings['spacing_mm'] / pixel_spacing_mm)
    images = patches.plain_images(
      hu, size=self.settings['image_size'], window=self.settings['window']
    )
    return images.to(dtype)

  def forward(
    self, hu: torch.Tensor, pixel_spacing_mm: torch.Tensor
  ) -> dict[str, torch.Tensor]:
    """Segments and classifies the nodules at the centres of patches.

    Args:
      hu: (N, 64, 64) attenuation in HU, not windowed, at the spacing of the
        scan, with the nodule at the centre (pixel 32, 32).
      pixel_spacing_mm: (N,) in-plane spacing.

    Returns:
      A dict: `mask` and `coarse_mask` (N, 64, 64) bool; `probability` and the
      class activation map `cam` (N, 64, 64); `malignancy` (N,), a probability.
      An average adds `malignancy_members` (M, N), that of each output, and
      `uncertainty` (N, 64, 64), the standard deviation of their `probability`.

    Raises:
      ValueError: hu has another shape.
    """
    side = self.settings['patch_size']
    if hu.ndim != 3 or hu.shape[1:] != (side, side):
      raise ValueError(
        f'hu has shape {tuple(hu.shape)}, not (N, {side}, {side}).'
      )
    all_outputs = [
      outputs
      for networks in self.members
      for outputs in self._views(networks, hu, pixel_spacing_mm)
    ]
    stacked = {
      name: torch.stack([outputs[name] for outputs in all_outputs])
      for name in _NETWORK_OUTPUTS
    }
    means = {name: x.mean(0) for name, x in stacked.items()}
    prediction = {
      'mask': means['fine'] >= THRESHOLD,
      'probability': means['fine'],
      'malignancy': means['class'],
      'coarse_mask': means['coarse'] >= THRESHOLD,
      'cam': means['cam'],
    }
    if self._is_average:
      prediction['malignancy'] = self._tempered(means['class'])
      prediction['malignancy_members'] = self._tempered(stacked['class'])
      squares = (stacked['fine'] - means['fine']).square()
      prediction['uncertainty'] = squares.mean(0).sqrt()
    return prediction

  def _tempered(self, probability: torch.Tensor) -> torch.Tensor:
    """Divides the logits of probabilities by the temperature."""
    temperature = self.settings['temperature']
    if temperature == 1:
      return probability
    # In float64, because float32 would round 1 - eps to 1.
    logits = torch.logit(probability.double(), eps=1e-9)
    return (logits / temperature).sigmoid().to(probability.dtype)

  def _views(
    self,
    networks: nn.Module,
    hu: torch.Tensor,
    pixel_spacing_mm: torch.Tensor,
  ) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the outputs for the patches, or for each of their symmetries."""
    if not self.settings['symmetries']:
      yield self._outputs(networks, hu, pixel_spacing_mm)
      return
    outputs = self._outputs(
      networks,
      patches.symmetries(hu),
      pixel_spacing_mm.repeat(patches.NUM_SYMMETRIES),
    )
    outputs = {
      name: (
        patches.undo_symmetries(x)
        if x.ndim == 3
        else x.unflatten(0, (patches.NUM_SYMMETRIES, -1))
      )
      for name, x in outputs.items()
    }
    for i in range(patches.NUM_SYMMETRIES):
      yield {name: x[i] for name, x in outputs.items()}

  def _outputs(
    self,
    networks: nn.Module,
    hu: torch.Tensor,
    pixel_spacing_mm: torch.Tensor,
  ) -> dict[str, torch.Tensor]:
    """Returns probabilities of one training, on the patches' own pixels."""
    size = hu.shape[1]
    logits = networks(self.images(hu, pixel_spacing_mm))
    logits = {name: _wide(x, x.dtype) for name, x in logits.items()}
    outputs = {
      name: patches.to_patch_grid(logits[name][:, 0].sigmoid(), size)
      for name in ('coarse', 'fine')
    }
    malignancy = logits['class']
    if not self._is_average:
      # For an average, `forward` calibrates the mean instead.
      malignancy = malignancy / self.settings['temperature']
    outputs['class'] = malignancy.sigmoid()
    outputs['cam'] = patches.to_patch_grid(logits['cam'], size)
    if self.settings['spacing_mm']:
      scale = _wide(pixel_spacing_mm, logits['cam'].dtype)
      scale = scale / self.settings['spacing_mm']
      outputs = {
        name: patches.resample(x, scale, outside=0.0) if x.ndim == 3 else x
        for name, x in outputs.items()
      }
    return outputs


def load(path: str | os.PathLike[str] | None = None) -> MTNet:
  """Loads a trained model, in evaluation mode.

  Args:
    path: path of the weights; default: `weights.safetensors` beside this file.

  Raises:
    ValueError: the file is damaged, or is not an exported MT-Net.
  """
  if path is None:
    path = pathlib.Path(__file__).with_name('weights.safetensors')
  settings, tensors = tensor_file.read_tensors(path)
  try:
    _check_counts(settings, max_count=len(tensors))
    # The meta device allocates nothing, however large a damaged file claims the
    # networks are: `load_state_dict` then refuses its tensors.
    with torch.device('meta'):
      model = MTNet(settings)
    model.load_state_dict(tensors, assign=True)
  except (
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
  ) as error:
    raise ValueError(
      f'{path}: weights and settings do not belong together'
      f' ({" ".join(str(error).split())[:300]}). Export the model again.'
    ) from error
  return model.eval()


def _check_counts(settings: Mapping[str, Any], *, max_count: int) -> None:
  """Raises `ValueError` if there would be more modules than tensors."""
  counts = [settings['members']]
  counts += [
    settings[f'{name}_net'].get('middle_blocks', 0)
    for name in ('coarse', 'class', 'fine')
  ]
  if max(counts) > max_count:
    raise ValueError(f'{max(counts)} modules for {max_count} tensors')


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
  """Writes a model with its settings, so that `load` can read it.

  Args:
    model: an `MTNet`, which `torch.compile` or `DataParallel` may wrap.
    path: path of the file.

  Raises:
    ValueError: the model is not an `MTNet`, or its layers do not match its
      settings.
  """
  for wrapper in ('_orig_mod', 'module'):
    model = getattr(model, wrapper, model)
  if not isinstance(model, MTNet):
    raise ValueError(
      f'{type(model).__name__} is not an MTNet: pass the whole model.'
    )
  tensors = model.state_dict()
  with torch.device('meta'):
    expected = MTNet(model.settings)
  try:
    expected.load_state_dict(tensors, assign=True)
  except RuntimeError as error:
    raise ValueError(
      'the layers of the model do not match its settings'
      f' ({" ".join(str(error).split())[:300]}).'
    ) from error
  tensor_file.write_tensors(path, model.settings, tensors)


def _wide(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
  """Casts values to a type of at least 32 bits."""
  return values.to(torch.promote_types(dtype, torch.float32))
