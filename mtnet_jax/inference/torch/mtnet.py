"""MT-Net in PyTorch: HU patches in, masks and malignancy out."""

import pathlib

import torch
from torch import nn

from mtnet_jax.inference.torch import deeplab
from mtnet_jax.inference.torch import layers
from mtnet_jax.inference.torch import patches
from mtnet_jax.inference.torch import tensor_file
from mtnet_jax.inference.torch import xception
from mtnet_jax.weights import exported_settings

THRESHOLD = 0.5
_OUTPUTS = ('coarse', 'class', 'fine', 'cam')
_ANSWERS = ('mask', 'probability', 'malignancy', 'coarse_mask', 'cam')
_OF_AVERAGES = ('malignancy_members', 'uncertainty')


class Networks(nn.Module):
  """The three networks of one training, each on what those before it say.

  Args:
    settings: of `MTNet`.

  Attributes:
    coarse_net, fine_net: `deeplab.DeepLabV3Plus`.
    class_net: `xception.ClassNet`.
  """

  def __init__(self, settings):
    super().__init__()
    self.coarse_mask = settings['coarse_mask']
    self.fine_maps = settings['fine_net']['maps']
    self.coarse_net = deeplab.DeepLabV3Plus(**settings['coarse_net'])
    self.class_net = xception.ClassNet(**settings['class_net'])
    self.fine_net = deeplab.DeepLabV3Plus(**settings['fine_net'])

  def forward(self, images):
    """Maps (B, 3, S, S) in [-1, 1] to logits.

    Returns:
      A dict: 'coarse' and 'fine' (B, 1, S, S), 'class' (B,), and the class
      activation map 'cam' (B, H', W').
    """
    coarse = self.coarse_net(images)
    mask = self.passed_on(coarse)
    malignant, cam = self.class_net(images, mask)
    maps = mask
    if self.fine_maps == 2:
      # As probabilities: bounded as the mask is.
      guided = layers.resize(cam.sigmoid()[:, None], mask.shape[2:])
      maps = torch.cat([mask, guided], 1)
    fine = self.fine_net(images, maps)
    return {'coarse': coarse, 'class': malignant, 'cam': cam, 'fine': fine}

  def passed_on(self, coarse_logits):
    """The coarse mask as the other networks receive it, (B, 1, S, S)."""
    if self.coarse_mask == 'none':
      return torch.zeros_like(coarse_logits)
    probs = coarse_logits.sigmoid()
    if self.coarse_mask == 'soft':
      return probs
    return (probs >= THRESHOLD).to(probs.dtype)


class MTNet(nn.Module):
  """The networks of one training, or of several whose outputs are averaged.

  Args:
    settings: what is in the file of weights, a dict: `patch_size`,
      `image_size`, `window`, `spacing_mm` (None where patches keep the scan's),
      `coarse_mask` ('hard', 'soft', 'none'), `temperature`, `symmetries`,
      `members`, and the arguments of the networks, `coarse_net`, `class_net`
      and `fine_net`.

  Raises:
    ValueError: they are others.

  Attributes:
    settings: these.
    members: the `Networks` of each training.
    answers: names of what `forward` returns.
  """

  def __init__(self, settings):
    super().__init__()
    exported_settings.check_settings(settings)
    self.settings = settings
    self.members = nn.ModuleList(
      Networks(settings) for _ in range(settings['members'])
    )
    self._is_average = settings['members'] > 1 or settings['symmetries']
    self.answers = (*_ANSWERS, *(_OF_AVERAGES if self._is_average else ()))

  def images(self, hu, pixel_spacing_mm):
    """What the networks see: (N, P, P) HU and (N,) mm to (N, 3, S, S)."""
    dtype = self.members[0].class_net.fc.weight.dtype
    # Scans come as integers; shorter types do not hold HU.
    hu, pixel_spacing_mm = (_wide(x, dtype) for x in (hu, pixel_spacing_mm))
    if self.settings['spacing_mm']:
      hu = patches.resample(hu, self.settings['spacing_mm'] / pixel_spacing_mm)
    images = patches.plain_images(
      hu, size=self.settings['image_size'], window=self.settings['window']
    )
    return images.to(dtype)

  def forward(self, hu, pixel_spacing_mm):
    """Segments and classifies the nodules in the middle of patches.

    Args:
      hu: (N, 64, 64) attenuation in HU, not windowed, at the spacing of the
        scan, the nodule in the middle (pixel 32, 32).
      pixel_spacing_mm: (N,) in-plane spacing.

    Returns:
      A dict: `mask` and `coarse_mask` (N, 64, 64) bool; `probability` and the
      class activation map `cam` (N, 64, 64); `malignancy` (N,), a probability.
      Of an average also `malignancy_members` (M, N), that of each output, and
      `uncertainty` (N, 64, 64), the standard deviation of their `probability`.

    Raises:
      ValueError: hu has another shape.
    """
    side = self.settings['patch_size']
    if hu.ndim != 3 or hu.shape[1:] != (side, side):
      raise ValueError(f'hu is {tuple(hu.shape)}, not (N, {side}, {side}).')
    found = [
      outputs
      for networks in self.members
      for outputs in self._views(networks, hu, pixel_spacing_mm)
    ]
    stacked = {name: torch.stack([x[name] for x in found]) for name in _OUTPUTS}
    means = {name: x.mean(0) for name, x in stacked.items()}
    answer = {
      'mask': means['fine'] >= THRESHOLD,
      'probability': means['fine'],
      'malignancy': means['class'],
      'coarse_mask': means['coarse'] >= THRESHOLD,
      'cam': means['cam'],
    }
    if self._is_average:
      answer['malignancy'] = self._tempered(means['class'])
      answer['malignancy_members'] = self._tempered(stacked['class'])
      squares = (stacked['fine'] - means['fine']).square()
      answer['uncertainty'] = squares.mean(0).sqrt()
    return answer

  def _tempered(self, probability):
    """A probability whose logit is divided by the temperature."""
    temperature = self.settings['temperature']
    if temperature == 1:
      return probability
    # In float64, where no probability of float32 but 0 and 1 rounds to these.
    logits = torch.logit(probability.double(), eps=1e-9)
    return (logits / temperature).sigmoid().to(probability.dtype)

  def _views(self, networks, hu, pixel_spacing_mm):
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
        patches.turned_back(x)
        if x.ndim == 3
        else x.unflatten(0, (patches.NUM_SYMMETRIES, -1))
      )
      for name, x in outputs.items()
    }
    for i in range(patches.NUM_SYMMETRIES):
      yield {name: x[i] for name, x in outputs.items()}

  def _outputs(self, networks, hu, pixel_spacing_mm):
    """Probabilities of one training, on the patches' own pixels."""
    size = hu.shape[1]
    logits = networks(self.images(hu, pixel_spacing_mm))
    logits = {name: _wide(x, x.dtype) for name, x in logits.items()}
    outputs = {
      name: patches.to_patch_grid(logits[name][:, 0].sigmoid(), size)
      for name in ('coarse', 'fine')
    }
    malignant = logits['class']
    if not self._is_average:
      # Of an average, the mean is calibrated.
      malignant = malignant / self.settings['temperature']
    outputs['class'] = malignant.sigmoid()
    outputs['cam'] = patches.to_patch_grid(logits['cam'], size)
    if self.settings['spacing_mm']:
      scale = _wide(pixel_spacing_mm, logits['cam'].dtype)
      scale = scale / self.settings['spacing_mm']
      outputs = {
        name: patches.resample(x, scale, outside=0.0) if x.ndim == 3 else x
        for name, x in outputs.items()
      }
    return outputs


def load(path=None):
  """The trained model, for prediction.

  Args:
    path: of the weights; default: `weights.safetensors` beside this file.

  Returns:
    `MTNet`.

  Raises:
    ValueError: the file is damaged, or of something else.
  """
  if path is None:
    path = pathlib.Path(__file__).with_name('weights.safetensors')
  settings, tensors = tensor_file.read_tensors(path)
  try:
    _check_counts(settings, most=len(tensors))
    # Without memory: what is too large fits no tensor of the file.
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
      f' ({" ".join(str(error).split())[:300]}).'
    ) from error
  return model.eval()


def _check_counts(settings, *, most):
  """Raises where there would be more parts than tensors."""
  parts = [settings['members']]
  parts += [
    settings[f'{name}_net'].get('middle_blocks', 0)
    for name in ('coarse', 'class', 'fine')
  ]
  if max(parts) > most:
    raise ValueError(f'{max(parts)} parts, of {most} tensors')


def save(model, path):
  """Writes a model, also one that was trained on, as `load` reads it.

  Args:
    model: `MTNet`, also as `torch.compile` or `DataParallel` wraps it.
    path: of the file.

  Raises:
    ValueError: it is something else, or its layers are not those of its
      settings.
  """
  for wrapper in ('_orig_mod', 'module'):
    model = getattr(model, wrapper, model)
  if not isinstance(model, MTNet):
    raise ValueError(
      f'{type(model).__name__} is no MTNet: give the whole model.'
    )
  tensors = model.state_dict()
  with torch.device('meta'):
    fresh = MTNet(model.settings)
  try:
    fresh.load_state_dict(tensors, assign=True)
  except RuntimeError as error:
    raise ValueError(
      'the layers are not those of the settings'
      f' ({" ".join(str(error).split())[:300]}).'
    ) from error
  tensor_file.write_tensors(path, model.settings, tensors)


def _wide(values, dtype):
  """Values in a type, or in float32 where that is shorter."""
  return values.to(torch.promote_types(dtype, torch.float32))
