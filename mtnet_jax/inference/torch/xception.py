"""Class-net in PyTorch: Xception, with the paper's change to its exit flow.

Parameters carry the names of timm's `legacy_xception`; the first kernel has a
fourth channel for the coarse mask.
"""

import torch
from torch import nn
from torch.nn import functional

from mtnet_jax.inference.torch import layers


class SeparableConv(nn.Module):
  """Depthwise 3 x 3, then pointwise."""

  def __init__(self, features_in, features, dilation=1):
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

  def forward(self, x):
    return self.pointwise(self.conv1(x))


class MaxPool(nn.Module):
  """Max-pooling 3 x 3 / 2; padded as PyTorch does, or as Keras does."""

  def __init__(self, padding):
    super().__init__()
    self.padding = padding

  def forward(self, x):
    if self.padding == 'symmetric':
      return functional.max_pool2d(x, 3, 2, 1)
    # Keras pads no more than the windows need, and less of it at the start.
    (top, bottom), (left, right) = (
      (1, 1) if size % 2 else (0, 1) for size in x.shape[2:]
    )
    x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
    return functional.max_pool2d(x, 3, 2)


class Block(nn.Module):
  """Separable convolutions with batch norms, ReLUs between, and a skip.

  Args:
    features_in: channels of the input.
    widths: channels of the separable convolutions.
    pool_padding: max-pooling at the end, and a strided skip; see `MaxPool`.
      None for neither.
    first_relu: whether the first convolution has its ReLU.
    skip_relu: identity skips carry relu(x).
  """

  def __init__(
    self,
    features_in,
    widths,
    *,
    pool_padding=None,
    first_relu=True,
    skip_relu=False,
  ):
    super().__init__()
    self.skip = None
    self.skip_relu = skip_relu
    if pool_padding or features_in != widths[-1]:
      stride = 2 if pool_padding else 1
      self.skip = nn.Conv2d(features_in, widths[-1], 1, stride, bias=False)
      self.skipbn = layers.BatchNorm(widths[-1])
    parts = []
    for width in widths:
      if parts or first_relu:
        # The first must leave what the skip reads as it is.
        parts.append(nn.ReLU(inplace=bool(parts)))
      parts += [SeparableConv(features_in, width), layers.BatchNorm(width)]
      features_in = width
    if pool_padding:
      parts.append(MaxPool(pool_padding))
    self.rep = nn.Sequential(*parts)

  def forward(self, x):
    if self.skip is not None:
      skip = self.skipbn(self.skip(x))
    else:
      skip = functional.relu(x) if self.skip_relu else x
    return self.rep(x) + skip


class ClassNet(nn.Module):
  """Windowed CT and the coarse mask to the logit of malignancy.

  Args:
    use_coarse_mask: whether it receives the mask.
    stem_widths, entry_widths, middle_blocks, exit_width, tail_widths: as in
      `deeplab.AlignedXception`.
    tail_dilation: of the last separable convolutions, and their padding.
    exit_pool: keep the exit flow's max-pooling, as the original does.
    pool_padding: 'symmetric', or Keras's 'same'.
    skip_relu: identity skips carry relu(x).
    dropout_rate: of whole channels, before the classifier.
    input_mean, input_std, bn_epsilon, bn_momentum: as in
      `deeplab.DeepLabV3Plus`.
  """

  def __init__(
    self,
    *,
    use_coarse_mask=True,
    stem_widths=(32, 64),
    entry_widths=(128, 256, 728),
    middle_blocks=8,
    exit_width=1024,
    tail_widths=(1536, 2048),
    tail_dilation=2,
    exit_pool=False,
    pool_padding='symmetric',
    skip_relu=False,
    dropout_rate=0.0,
    input_mean=(0.0,),
    input_std=(1.0,),
    bn_epsilon=1e-5,
    bn_momentum=0.9,
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

  def forward(self, images, coarse_mask=None):
    """Classifies windowed CT given a coarse mask.

    Args:
      images: (B, 3, H, W) in [-1, 1].
      coarse_mask: (B, 1, H, W), 0 and 1 or probabilities; not read where
        `use_coarse_mask` is False.

    Returns:
      Logits (B,) and the class activation map (B, H', W'), whose mean plus the
      classifier's bias is the logit.
    """
    x = self.input_scale(images)
    if self.use_coarse_mask:
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
