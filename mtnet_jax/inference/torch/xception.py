"""Class-net in PyTorch: Xception, with the paper's change to its exit flow.

What `mtnet_jax.models.mtnet.ClassNet()` is compared with, in values and in
speed. Its parameters carry the names of timm's `legacy_xception`, so that the
same loader reads them; the first kernel has a fourth channel for the coarse
mask. Nothing is downloaded.
"""

from torch import nn
from torch.nn import functional


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


class Block(nn.Module):
  """Separable convolutions with batch norms, ReLUs between, and a skip."""

  def __init__(self, features_in, widths, *, pool=False, first_relu=True):
    super().__init__()
    self.skip = None
    if pool or features_in != widths[-1]:
      stride = 2 if pool else 1
      self.skip = nn.Conv2d(features_in, widths[-1], 1, stride, bias=False)
      self.skipbn = nn.BatchNorm2d(widths[-1])
    layers = []
    for width in widths:
      if layers or first_relu:
        # The first must leave what the skip reads as it is.
        layers.append(nn.ReLU(inplace=bool(layers)))
      layers += [SeparableConv(features_in, width), nn.BatchNorm2d(width)]
      features_in = width
    if pool:
      layers.append(nn.MaxPool2d(3, 2, 1))
    self.rep = nn.Sequential(*layers)

  def forward(self, x):
    skip = x if self.skip is None else self.skipbn(self.skip(x))
    return self.rep(x) + skip


class ClassNet(nn.Module):
  """(B, 4, H, W), CT thrice and the coarse mask, to (B,) logits."""

  def __init__(self):
    super().__init__()
    self.conv1 = nn.Conv2d(4, 32, 3, 2, bias=False)
    self.bn1 = nn.BatchNorm2d(32)
    self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
    self.bn2 = nn.BatchNorm2d(64)
    self.block1 = Block(64, (128,) * 2, pool=True, first_relu=False)
    self.block2 = Block(128, (256,) * 2, pool=True)
    self.block3 = Block(256, (728,) * 2, pool=True)
    for i in range(4, 12):
      self.add_module(f'block{i}', Block(728, (728,) * 3))
    self.block12 = Block(728, (728, 1024))
    self.conv3 = SeparableConv(1024, 1536, dilation=2)
    self.bn3 = nn.BatchNorm2d(1536)
    self.conv4 = SeparableConv(1536, 2048, dilation=2)
    self.bn4 = nn.BatchNorm2d(2048)
    self.fc = nn.Linear(2048, 1)

  def forward(self, images):
    x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
    x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
    for i in range(1, 13):
      x = self.get_submodule(f'block{i}')(x)
    x = functional.relu(self.bn3(self.conv3(x)), inplace=True)
    x = functional.relu(self.bn4(self.conv4(x)), inplace=True)
    return self.fc(x.mean((2, 3)))[:, 0]
