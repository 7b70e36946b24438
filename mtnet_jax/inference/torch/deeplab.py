"""DeepLabv3+ on the modified aligned Xception-65, in PyTorch.

This is the architecture of Coarse Seg-net and Fine Seg-net. Parameters have the
names and shapes of the public PyTorch weights (trained on COCO, then VOC) from
which the paper's code starts. `DeepLabV3Plus(21, **PUBLIC)` is the network that
those weights were trained with:

* batch norm with epsilon 1e-5, after every depthwise and pointwise convolution;
* biases in the pyramid and the decoder, none in the backbone;
* bilinear upsampling with aligned corners;
* identity skips carry relu(x), because that code applies the first ReLU of a
  block in place;
* the last three separable convolutions are not dilated.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mtnet_jax.inference.torch import layers

PUBLIC = {'tail_dilation': 1, 'skip_relu': True}


class AlignedSeparableConv(nn.Module):
  """Depthwise 3 x 3, BN, pointwise, BN; with `relu` a ReLU after each BN."""

  def __init__(
    self,
    features_in: int,
    features: int,
    stride: int = 1,
    dilation: int = 1,
    relu: bool = False,
  ):
    super().__init__()
    self.depthwise = nn.Conv2d(
      features_in,
      features_in,
      3,
      stride,
      padding=dilation,
      dilation=dilation,
      groups=features_in,
      bias=False,
    )
    self.bn1 = layers.BatchNorm(features_in)
    self.pointwise = nn.Conv2d(features_in, features, 1, bias=False)
    self.bn2 = layers.BatchNorm(features)
    self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, H, W) to (B, features, H / stride, W / stride)."""
    x = self.relu(self.bn1(self.depthwise(x)))
    return self.relu(self.bn2(self.pointwise(x)))


class AlignedBlock(nn.Module):
  """Three separable convolutions, a ReLU before each, and a skip."""

  def __init__(
    self,
    features_in: int,
    widths: Sequence[int],
    *,
    stride: int = 1,
    skip_relu: bool = False,
  ):
    super().__init__()
    self.skip: nn.Conv2d | None = None
    if stride > 1 or features_in != widths[-1]:
      self.skip = nn.Conv2d(features_in, widths[-1], 1, stride, bias=False)
      self.skipbn = layers.BatchNorm(widths[-1])
    self.skip_relu = skip_relu
    self.sepconv1 = AlignedSeparableConv(features_in, widths[0])
    self.sepconv2 = AlignedSeparableConv(widths[0], widths[1])
    self.sepconv3 = AlignedSeparableConv(widths[1], widths[2], stride)

  def forward(
    self, x: torch.Tensor, *, tap_second: bool = False
  ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Maps (B, C, H, W) to the output of the block.

    With `tap_second` it also returns the second convolution's output, after its
    batch norm and before any ReLU: DeepLabv3+'s low-level features.
    """
    if self.skip is not None:
      skip = self.skipbn(self.skip(x))
      x = functional.relu(x)
    else:
      skip, x = x, functional.relu(x)
      if self.skip_relu:
        skip = x
    x = functional.relu(self.sepconv1(x), inplace=True)
    second = self.sepconv2(x)
    x = self.sepconv3(functional.relu(second, inplace=not tap_second))
    x += skip
    return (x, second) if tap_second else x


class AlignedXception(nn.Module):
  """The backbone at output stride 16; Xception-65 by default.

  Args:
    stem_widths: channels of the two plain convolutions.
    entry_widths: channels of the entry blocks; each halves the resolution.
    middle_blocks: number of identity blocks, with the last entry width.
    exit_width: channels of the exit block.
    tail_widths: channels of the last separable convolutions.
    tail_dilation: dilation of the last separable convolutions.
    skip_relu: whether identity skips carry relu(x).

  Attributes:
    features: channels of the features at stride 16.
    low_level_features: channels of the features at stride 4.
  """

  def __init__(
    self,
    *,
    stem_widths: Sequence[int] = (32, 64),
    entry_widths: Sequence[int] = (128, 256, 728),
    middle_blocks: int = 16,
    exit_width: int = 1024,
    tail_widths: Sequence[int] = (1536, 1536, 2048),
    tail_dilation: int = 2,
    skip_relu: bool = False,
  ):
    super().__init__()
    first, features = stem_widths
    self.conv1 = nn.Conv2d(3, first, 3, 2, padding=1, bias=False)
    self.bn1 = layers.BatchNorm(first)
    self.conv2 = nn.Conv2d(first, features, 3, padding=1, bias=False)
    self.bn2 = layers.BatchNorm(features)
    width = entry_widths[-1]
    blocks = [((each,) * 3, 2) for each in entry_widths]
    blocks += [((width,) * 3, 1)] * middle_blocks
    blocks.append(((width, exit_width, exit_width), 1))
    self.num_blocks = len(blocks)
    self.low_level_features = blocks[1][0][1]  # block2's second convolution
    for i, (widths, stride) in enumerate(blocks, 1):
      block = AlignedBlock(features, widths, stride=stride, skip_relu=skip_relu)
      self.add_module(f'block{i}', block)
      features = widths[-1]
    self.num_tail = len(tail_widths)
    for i, width in enumerate(tail_widths, 3):
      conv = AlignedSeparableConv(
        features, width, dilation=tail_dilation, relu=True
      )
      self.add_module(f'conv{i}', conv)
      features = width
    self.features = features

  def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps (B, 3, H, W) to features at stride 16 and at stride 4."""
    x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
    x = self.get_submodule('block1')(x)
    x, low_level = self.get_submodule('block2')(x, tap_second=True)
    for i in range(3, self.num_blocks + 1):
      x = self.get_submodule(f'block{i}')(x)
    for i in range(3, self.num_tail + 3):
      x = self.get_submodule(f'conv{i}')(x)
    return x, low_level


def _conv_bn_relu(features_in, features, size=1, dilation=1):
  padding = dilation * (size // 2)
  return (
    nn.Conv2d(features_in, features, size, padding=padding, dilation=dilation),
    layers.BatchNorm(features),
    nn.ReLU(inplace=True),
  )


class Aspp(nn.Module):
  """Atrous spatial pyramid pooling: 1 x 1, dilated 3 x 3s, image pooling."""

  def __init__(self, features_in: int, features: int, rates: Sequence[int]):
    super().__init__()
    self.branch1 = nn.Sequential(*_conv_bn_relu(features_in, features))
    for i, rate in enumerate(rates, 2):
      branch = nn.Sequential(*_conv_bn_relu(features_in, features, 3, rate))
      self.add_module(f'branch{i}', branch)
    self.num_convs = len(rates) + 1
    pooling = f'branch{self.num_convs + 1}'
    self.add_module(f'{pooling}_conv', nn.Conv2d(features_in, features, 1))
    self.add_module(f'{pooling}_bn', layers.BatchNorm(features))
    branches = self.num_convs + 1
    self.conv_cat = nn.Sequential(*_conv_bn_relu(branches * features, features))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, H, W) to (B, features, H, W)."""
    pooling = f'branch{self.num_convs + 1}'
    pooled = self.get_submodule(f'{pooling}_conv')(x.mean((2, 3), keepdim=True))
    pooled = functional.relu(self.get_submodule(f'{pooling}_bn')(pooled))
    branches = [
      self.get_submodule(f'branch{i}')(x) for i in range(1, self.num_convs + 1)
    ]
    branches.append(pooled.expand(-1, -1, *x.shape[2:]))
    return self.conv_cat(torch.cat(branches, 1))


def _resize(x: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
  return functional.interpolate(x, size_hw, mode='bilinear', align_corners=True)


class DeepLabV3Plus(nn.Module):
  """DeepLabv3+: (B, 3, H, W) to logits (B, num_classes, H, W).

  Args:
    num_classes: output channels; the public weights have VOC's 21.
    maps: input channels of MT-Net's fine layer beside the deepest features; 0
      for a network without the layer.
    aspp_features, low_level_features, decoder_features: channels.
    aspp_rates: dilations of the pyramid.
    dropout_rates: after the pyramid, and after each decoder convolution.
    input_mean, input_std: range the weights expect; see `InputScale`.
    bn_epsilon, bn_momentum: see `set_batch_norms`.
    **backbone: arguments of `AlignedXception`.
  """

  def __init__(
    self,
    num_classes: int = 1,
    *,
    maps: int = 0,
    aspp_features: int = 256,
    aspp_rates: Sequence[int] = (6, 12, 18),
    low_level_features: int = 48,
    decoder_features: int = 256,
    dropout_rates: Sequence[float] = (0.5, 0.5, 0.1),
    input_mean: Sequence[float] = (0.0,),
    input_std: Sequence[float] = (1.0,),
    bn_epsilon: float = 1e-5,
    bn_momentum: float = 0.9,
    **backbone: Any,
  ):
    super().__init__()
    self.input_scale = layers.InputScale(input_mean, input_std)
    self.backbone = AlignedXception(**backbone)
    self.aspp = Aspp(self.backbone.features, aspp_features, aspp_rates)
    if maps:
      self.fine_layer = nn.Sequential(
        *_conv_bn_relu(aspp_features + maps, aspp_features)
      )
    self.dropout1 = nn.Dropout(dropout_rates[0])
    self.shortcut_conv = nn.Sequential(
      *_conv_bn_relu(self.backbone.low_level_features, low_level_features)
    )
    self.cat_conv = nn.Sequential(
      *_conv_bn_relu(aspp_features + low_level_features, decoder_features, 3),
      nn.Dropout(dropout_rates[1]),
      *_conv_bn_relu(decoder_features, decoder_features, 3),
      nn.Dropout(dropout_rates[2]),
    )
    self.cls_conv = nn.Conv2d(decoder_features, num_classes, 1)
    layers.set_batch_norms(self, epsilon=bn_epsilon, momentum=bn_momentum)

  def forward(
    self, images: torch.Tensor, coarse_mask: torch.Tensor | None = None
  ) -> torch.Tensor:
    """Segments windowed CT in [-1, 1].

    Args:
      images: (B, 3, H, W).
      coarse_mask: (B, maps, H, W), 0 and 1 or probabilities, for the fine layer
        if the network has one.

    Returns:
      Logits (B, num_classes, H, W).
    """
    x, low_level = self.backbone(self.input_scale(images))
    x = self.dropout1(self.aspp(x))
    if coarse_mask is not None:
      # Sampling without averaging would miss small nodules.
      location = layers.resize(coarse_mask, x.shape[2:])
      x = self.fine_layer(torch.cat([x, location], 1))
    low_level = self.shortcut_conv(low_level)
    x = _resize(x, low_level.shape[2:])
    x = self.cat_conv(torch.cat([x, low_level], 1))
    return _resize(self.cls_conv(x), images.shape[2:])
