"""Class-net in PyTorch: Xception, with the paper's change to its exit flow.

Parameters have the names of timm's `legacy_xception`; the first kernel has a
fourth channel for the coarse mask.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from mtnet_jax.inference.torch import layers


class SeparableConv(nn.Module):
  """Depthwise 3 x 3, then pointwise convolution."""

  def __init__(self, features_in: int, features: int, dilation: int = 1):
    super().__init__()
    self.conv1 = nn.Conv2d(
      features_in,
      features_in,
      3,
      padding=dilation,
      dilation=dilation,
      groups=features_in,
      bias=False,
    )
    self.pointwise = nn.Conv2d(features_in, features, 1, bias=False)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, H, W) to (B, features, H, W)."""
    return self.pointwise(self.conv1(x))


class MaxPool(nn.Module):
  """Max-pooling 3 x 3 with stride 2, and the padding of PyTorch or Keras.

  Args:
    padding: 'symmetric' as in PyTorch, or 'same' as in Keras.
  """

  def __init__(self, padding: str):
    super().__init__()
    self.padding = padding

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
    if self.padding == 'symmetric':
      return functional.max_pool2d(x, 3, 2, 1)
    # Keras pads only what the last window needs, first at the bottom and right.
    (top, bottom), (left, right) = (
      (1, 1) if size % 2 else (0, 1) for size in x.shape[2:]
    )
    x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
    return functional.max_pool2d(x, 3, 2)


class Block(nn.Module):
  """Separable convolutions with batch norms, ReLUs between them, and a skip.

  Args:
    features_in: channels of the input.
    widths: channels of the separable convolutions.
    pool_padding: padding of `MaxPool`, for a block that ends with max-pooling
      and has a strided skip; None for a block without them.
    first_relu: whether a ReLU precedes the first convolution.
    skip_relu: whether identity skips carry relu(x).
  """

  def __init__(
    self,
    features_in: int,
    widths: Sequence[int],
    *,
    pool_padding: str | None = None,
    first_relu: bool = True,
    skip_relu: bool = False,
  ):
    super().__init__()
    self.skip: nn.Conv2d | None = None
    self.skip_relu = skip_relu
    if pool_padding or features_in != widths[-1]:
      stride = 2 if pool_padding else 1
      self.skip = nn.Conv2d(features_in, widths[-1], 1, stride, bias=False)
      self.skipbn = layers.BatchNorm(widths[-1])
    parts: list[nn.Module] = []
    for width in widths:
      if parts or first_relu:
        # In place, the first ReLU would change the input of the skip.
        parts.append(nn.ReLU(inplace=bool(parts)))
      parts += [SeparableConv(features_in, width), layers.BatchNorm(width)]
      features_in = width
    if pool_padding:
      parts.append(MaxPool(pool_padding))
    self.rep = nn.Sequential(*parts)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, H, W) to the output of the block."""
    if self.skip is not None:
      skip = self.skipbn(self.skip(x))
    else:
      skip = functional.relu(x) if self.skip_relu else x
    return self.rep(x) + skip


class ClassNet(nn.Module):
  """Class-net: windowed CT and the coarse mask to the logit of malignancy.

  Args:
    use_coarse_mask: whether the mask is an input.
    stem_widths, entry_widths, middle_blocks, exit_width, tail_widths: as in
      `AlignedXception`.
    tail_dilation: dilation and padding of the last separable convolutions.
    exit_pool: whether to keep the max-pooling of the original exit flow.
    pool_padding: 'symmetric', or Keras's 'same'.
    skip_relu: whether identity skips carry relu(x).
    dropout_rate: rate of dropped channels before the classifier.
    input_mean, input_std, bn_epsilon, bn_momentum: as in `DeepLabV3Plus`.
  """

  def __init__(
    self,
    *,
    use_coarse_mask: bool = True,
    stem_widths: Sequence[int] = (32, 64),
    entry_widths: Sequence[int] = (128, 256, 728),
    middle_blocks: int = 8,
    exit_width: int = 1024,
    tail_widths: Sequence[int] = (1536, 2048),
    tail_dilation: int = 2,
    exit_pool: bool = False,
    pool_padding: str = 'symmetric',
    skip_relu: bool = False,
    dropout_rate: float = 0.0,
    input_mean: Sequence[float] = (0.0,),
    input_std: Sequence[float] = (1.0,),
    bn_epsilon: float = 1e-5,
    bn_momentum: float = 0.9,
  ):
    super().__init__()
    self.use_coarse_mask = use_coarse_mask
    self.input_scale = layers.InputScale(input_mean, input_std)
    channels = 4 if use_coarse_mask else 3
    first, features = stem_widths
    self.conv1 = nn.Conv2d(channels, first, 3, 2, bias=False)
    self.bn1 = layers.BatchNorm(first)
    self.conv2 = nn.Conv2d(first, features, 3, bias=False)
    self.bn2 = layers.BatchNorm(features)
    width = entry_widths[-1]
    blocks: list[tuple[tuple[int, ...], bool]]
    blocks = [((each,) * 2, True) for each in entry_widths]
    blocks += [((width,) * 3, False)] * middle_blocks
    blocks.append(((width, exit_width), exit_pool))
    self.num_blocks = len(blocks)
    for i, (widths, pool) in enumerate(blocks, 1):
      block = Block(
        features,
        widths,
        pool_padding=pool_padding if pool else None,
        first_relu=i > 1,
        skip_relu=skip_relu,
      )
      self.add_module(f'block{i}', block)
      features = widths[-1]
    self.num_tail = len(tail_widths)
    for i, width in enumerate(tail_widths, 3):
      conv = SeparableConv(features, width, dilation=tail_dilation)
      self.add_module(f'conv{i}', conv)
      self.add_module(f'bn{i}', layers.BatchNorm(width))
      features = width
    self.dropout = nn.Dropout2d(dropout_rate)
    self.fc = nn.Linear(features, 1)
    layers.set_batch_norms(self, epsilon=bn_epsilon, momentum=bn_momentum)

  def forward(
    self, images: torch.Tensor, coarse_mask: torch.Tensor | None = None
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Classifies windowed CT with a coarse mask.

    Args:
      images: (B, 3, H, W) in [-1, 1].
      coarse_mask: (B, 1, H, W), 0 and 1 or probabilities; ignored if
        `use_coarse_mask` is False.

    Returns:
      Logits (B,) and the class activation map (B, H', W'), whose mean plus the
      classifier's bias is the logit.

    Raises:
      ValueError: the mask is an input of the network, and is missing.
    """
    x = self.input_scale(images)
    if self.use_coarse_mask:
      if coarse_mask is None:
        raise ValueError('coarse_mask is missing: pass a (B, 1, H, W) tensor.')
      x = torch.cat([x, coarse_mask], 1)
    x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
    for i in range(1, self.num_blocks + 1):
      x = self.get_submodule(f'block{i}')(x)
    for i in range(3, self.num_tail + 3):
      x = self.get_submodule(f'bn{i}')(self.get_submodule(f'conv{i}')(x))
      x = functional.relu(x, inplace=True)
    x = self.dropout(x)
    cam = functional.conv2d(x, self.fc.weight[:, :, None, None])[:, 0]
    return cam.mean((1, 2)) + self.fc.bias, cam
