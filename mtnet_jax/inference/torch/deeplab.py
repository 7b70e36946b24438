"""DeepLabv3+ on the modified aligned Xception-65, in PyTorch.

What Coarse Seg-net is compared with, in values and in speed. Written for that:
its parameters carry the names and shapes of the public PyTorch weights (trained
on COCO, then VOC) that the paper's lineage starts from, and by default it
computes what those weights were trained with:

* batch norm with epsilon 1e-5, after every depthwise and pointwise convolution;
* biases in the pyramid and the decoder, none in the backbone;
* bilinear upsampling with aligned corners;
* identity skips carry relu(x), because the lineage applies the first ReLU of a
  block in place;
* the last three separable convolutions are not dilated.

With `num_classes=1, tail_dilation=2, skip_relu=False` it is our
`mtnet_jax.models.mtnet.CoarseSegNet()`, layer by layer, and `FineSegNet()` with
`fine=True` in addition. Nothing is downloaded.
"""

import torch
from torch import nn
from torch.nn import functional


class BatchNorm(nn.BatchNorm2d):
  """Batch norm without a counter of batches.

  The public weights are older than PyTorch's `num_batches_tracked`, which only
  a cumulative average (`momentum=None`) would need.
  """

  def __init__(self, features):
    super().__init__(features)
    self.num_batches_tracked = None

  def _load_from_state_dict(self, *args, **kwargs):
    # The parent adds the counter to every state dict of that age.
    nn.Module._load_from_state_dict(self, *args, **kwargs)


class SeparableConv(nn.Module):
  """Depthwise 3 x 3, BN, pointwise, BN; on request a ReLU after each BN."""

  def __init__(self, features_in, features, stride=1, dilation=1, relu=False):
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
    self.bn1 = BatchNorm(features_in)
    self.pointwise = nn.Conv2d(features_in, features, 1, bias=False)
    self.bn2 = BatchNorm(features)
    self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

  def forward(self, x):
    x = self.relu(self.bn1(self.depthwise(x)))
    return self.relu(self.bn2(self.pointwise(x)))


class Block(nn.Module):
  """Three separable convolutions, a ReLU before each, and a skip."""

  def __init__(self, features_in, widths, *, stride=1, skip_relu=False):
    super().__init__()
    self.skip = None
    if stride > 1 or features_in != widths[-1]:
      self.skip = nn.Conv2d(features_in, widths[-1], 1, stride, bias=False)
      self.skipbn = BatchNorm(widths[-1])
    self.skip_relu = skip_relu
    self.sepconv1 = SeparableConv(features_in, widths[0])
    self.sepconv2 = SeparableConv(widths[0], widths[1])
    self.sepconv3 = SeparableConv(widths[1], widths[2], stride)

  def forward(self, x, *, tap_second=False):
    """Maps (B, C, H, W) to the sum and, on request, the second conv's output.

    Tapped after its batch norm and before any ReLU, as DeepLabv3+ does for its
    low-level feature.
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


class AlignedXception65(nn.Module):
  """The backbone at output stride 16; see `mtnet_jax.models.xception`."""

  def __init__(self, *, tail_dilation, skip_relu):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 32, 3, 2, padding=1, bias=False)
    self.bn1 = BatchNorm(32)
    self.conv2 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
    self.bn2 = BatchNorm(64)
    features_in = 64
    for i, width in enumerate((128, 256, 728), 1):
      self.add_module(f'block{i}', Block(features_in, (width,) * 3, stride=2))
      features_in = width
    for i in range(4, 20):
      self.add_module(f'block{i}', Block(728, (728,) * 3, skip_relu=skip_relu))
    self.block20 = Block(728, (728, 1024, 1024))
    tail = {'dilation': tail_dilation, 'relu': True}
    self.conv3 = SeparableConv(1024, 1536, **tail)
    self.conv4 = SeparableConv(1536, 1536, **tail)
    self.conv5 = SeparableConv(1536, 2048, **tail)

  def forward(self, x):
    """Maps (B, 3, H, W) to features at stride 16 and at stride 4."""
    x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
    x = self.block1(x)
    x, low_level = self.block2(x, tap_second=True)
    for i in range(3, 21):
      x = self.get_submodule(f'block{i}')(x)
    return self.conv5(self.conv4(self.conv3(x))), low_level


def _conv_bn_relu(features_in, features, size=1, dilation=1):
  padding = dilation * (size // 2)
  return (
    nn.Conv2d(features_in, features, size, padding=padding, dilation=dilation),
    BatchNorm(features),
    nn.ReLU(inplace=True),
  )


class Aspp(nn.Module):
  """Atrous spatial pyramid pooling: 1 x 1, dilated 3 x 3s, image pooling."""

  def __init__(self, features_in, features):
    super().__init__()
    self.branch1 = nn.Sequential(*_conv_bn_relu(features_in, features))
    for i, rate in enumerate((6, 12, 18), 2):
      branch = nn.Sequential(*_conv_bn_relu(features_in, features, 3, rate))
      self.add_module(f'branch{i}', branch)
    self.branch5_conv = nn.Conv2d(features_in, features, 1)
    self.branch5_bn = BatchNorm(features)
    self.conv_cat = nn.Sequential(*_conv_bn_relu(5 * features, features))

  def forward(self, x):
    pooled = self.branch5_bn(self.branch5_conv(x.mean((2, 3), keepdim=True)))
    pooled = functional.relu(pooled).expand(-1, -1, *x.shape[2:])
    branches = (self.branch1, self.branch2, self.branch3, self.branch4)
    branches = [branch(x) for branch in branches]
    return self.conv_cat(torch.cat([*branches, pooled], 1))


def _resize(x, size_hw):
  return functional.interpolate(x, size_hw, mode='bilinear', align_corners=True)


class DeepLabV3Plus(nn.Module):
  """The whole network: (B, 3, H, W) to logits (B, num_classes, H, W).

  Args:
    num_classes: output channels; the public weights have VOC's 21.
    tail_dilation: of the backbone's last three separable convolutions.
    skip_relu: identity skips carry relu(x).
    fine: with MT-Net's fine layer, which receives a mask (B, 1, H, W) too.
  """

  def __init__(
    self, num_classes=21, *, tail_dilation=1, skip_relu=True, fine=False
  ):
    super().__init__()
    self.aspp = Aspp(2048, 256)
    if fine:
      self.fine_layer = nn.Sequential(*_conv_bn_relu(256 + 1, 256))
    self.dropout1 = nn.Dropout(0.5)
    self.shortcut_conv = nn.Sequential(*_conv_bn_relu(256, 48))
    self.cat_conv = nn.Sequential(
      *_conv_bn_relu(256 + 48, 256, 3),
      nn.Dropout(0.5),
      *_conv_bn_relu(256, 256, 3),
      nn.Dropout(0.1),
    )
    self.cls_conv = nn.Conv2d(256, num_classes, 1)
    self.backbone = AlignedXception65(
      tail_dilation=tail_dilation, skip_relu=skip_relu
    )

  def forward(self, images, coarse_mask=None):
    x, low_level = self.backbone(images)
    x = self.dropout1(self.aspp(x))
    if coarse_mask is not None:
      location = functional.interpolate(
        coarse_mask, x.shape[2:], mode='bilinear', antialias=True
      )
      x = self.fine_layer(torch.cat([x, location], 1))
    low_level = self.shortcut_conv(low_level)
    x = _resize(x, low_level.shape[2:])
    x = self.cat_conv(torch.cat([x, low_level], 1))
    return _resize(self.cls_conv(x), images.shape[2:])
