"""Names of our layers in the weights of other implementations.

Each source has a function that makes a table: our layer -> their name. Tables
depend on the sizes of the network, so they also fit narrow networks. They may
contain layers that a network lacks (the skip of an identity block).
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
import re
from typing import Protocol


class Xception(Protocol):
  """The fields of an Xception that give its number of layers."""

  @property
  def entry_widths(self) -> Sequence[int]:
    """Width of each block of the entry flow."""

  @property
  def middle_blocks(self) -> int:
    """Number of blocks of the middle flow."""

  @property
  def tail_widths(self) -> Sequence[int]:
    """Width of each separable convolution after the blocks."""


class DeepLab(Xception, Protocol):
  """The fields of a DeepLabv3+ that give its number of layers."""

  @property
  def aspp_rates(self) -> Sequence[int]:
    """Dilation of each dilated convolution of the pyramid."""


def _blocks(net: Xception) -> range:
  """Returns the numbers of all blocks: entry flow, middle flow, exit block."""
  num_entry = len(net.entry_widths)
  return range(1, num_entry + net.middle_blocks + 2)


def _tail(net: Xception) -> range:
  """Returns the numbers of the separable convolutions after the blocks."""
  return range(1, len(net.tail_widths) + 1)


def _aligned_xception(
  net: Xception,
  *,
  stem: Callable[[int], tuple[str, str]],
  block: Callable[[int], str],
  skip: tuple[str, str],
  sepconv: str,
  tail: Callable[[int], str],
  members: tuple[str, str, str, str],
) -> dict[str, str]:
  """Makes the table of an aligned Xception backbone.

  Args:
    net: network; its fields give the number of layers.
    stem: number of a plain convolution -> names of it and of its batch norm.
    block: number of a block -> its name.
    skip: suffixes of the skip of a block, and of the skip's batch norm.
    sepconv: suffix of a separable convolution in a block, with {} for its
      number.
    tail: number of a separable convolution after the blocks -> its name.
    members: suffixes of the four layers of a separable convolution: depthwise,
      batch norm, pointwise, batch norm.
  """

  def separable(ours, theirs):
    parts = ('depthwise', 'depthwise_bn', 'pointwise', 'pointwise_bn')
    return {
      f'{ours}/{part}': f'{theirs}{member}'
      for part, member in zip(parts, members, strict=True)
    }

  names = {}
  for i in (1, 2):
    names[f'backbone/conv{i}'], names[f'backbone/bn{i}'] = stem(i)
  for i in _blocks(net):
    ours, theirs = f'backbone/block{i}', block(i)
    names[f'{ours}/skip'] = f'{theirs}{skip[0]}'
    names[f'{ours}/skip_bn'] = f'{theirs}{skip[1]}'
    for j in (1, 2, 3):
      names |= separable(f'{ours}/sepconv{j}', theirs + sepconv.format(j))
  for i in _tail(net):
    names |= separable(f'backbone/sepconv{i}', tail(i))
  return names


# Aligned Xception-65 and DeepLabv3+.


def torch_deeplab(net: DeepLab) -> dict[str, str]:
  """Names in DeepLabv3+ of github.com/YudeWang/deeplabv3plus-pytorch."""
  names = _aligned_xception(
    net,
    stem=lambda i: (f'backbone.conv{i}', f'backbone.bn{i}'),
    block='backbone.block{}'.format,
    skip=('.skip', '.skipbn'),
    sepconv='.sepconv{}',
    tail=lambda i: f'backbone.conv{i + 2}',
    members=('.depthwise', '.bn1', '.pointwise', '.bn2'),
  )
  convolutions = {
    'low_level': 'shortcut_conv.{}',
    'decoder1': 'cat_conv.{}',
    'aspp/fuse': 'aspp.conv_cat.{}',
    **{
      f'aspp/branch{i}': f'aspp.branch{i + 1}.{{}}'
      for i in range(len(net.aspp_rates) + 1)
    },
  }
  for ours, theirs in convolutions.items():
    names[f'{ours}/conv'] = theirs.format(0)
    names[f'{ours}/bn'] = theirs.format(1)
  names['decoder2/conv'] = 'cat_conv.4'
  names['decoder2/bn'] = 'cat_conv.5'
  pooling = f'aspp.branch{len(net.aspp_rates) + 2}'
  names['aspp/image_pooling/conv'] = f'{pooling}_conv'
  names['aspp/image_pooling/bn'] = f'{pooling}_bn'
  return names


def mtnet_segmentation(net: DeepLab) -> dict[str, str]:
  """Names in exported Seg-nets: `torch_deeplab`, fine layer and classifier."""
  return {
    **torch_deeplab(net),
    'fine_layer/conv': 'fine_layer.0',
    'fine_layer/bn': 'fine_layer.1',
    'classifier': 'cls_conv',
  }


def timm_xception65(net: Xception) -> dict[str, str]:
  """Names in `timm.models.xception_aligned`, variant xception65."""
  return _aligned_xception(
    net,
    stem=lambda i: (f'stem.{i - 1}.conv', f'stem.{i - 1}.bn'),
    block=lambda i: f'blocks.{i - 1}',
    skip=('.shortcut.conv', '.shortcut.bn'),
    sepconv='.stack.conv{}',
    tail=lambda i: f'blocks.{len(_blocks(net))}.stack.conv{i}',
    members=('.conv_dw', '.bn_dw', '.conv_pw', '.bn_pw'),
  )


def tensorflow_deeplab(net: Xception) -> dict[str, str]:
  """Names in xception_65 of github.com/tensorflow/models, research/deeplab."""
  num_entry = len(net.entry_widths)

  def stem(i):
    conv = f'xception_65/entry_flow/conv1_{i}'
    return conv, f'{conv}/BatchNorm'

  def block(i):
    if i <= num_entry:
      unit = f'entry_flow/block{i}/unit_1'
    elif i <= num_entry + net.middle_blocks:
      unit = f'middle_flow/block1/unit_{i - num_entry}'
    else:
      unit = 'exit_flow/block1/unit_1'
    return f'xception_65/{unit}/xception_module'

  tail = 'xception_65/exit_flow/block2/unit_1/xception_module/separable_conv{}'
  return _aligned_xception(
    net,
    stem=stem,
    block=block,
    skip=('/shortcut', '/shortcut/BatchNorm'),
    sepconv='/separable_conv{}',
    tail=tail.format,
    members=(
      '_depthwise',
      '_depthwise/BatchNorm',
      '_pointwise',
      '_pointwise/BatchNorm',
    ),
  )


# Xception.


def timm_xception(net: Xception) -> dict[str, str]:
  """Names in `timm.models.xception`, legacy_xception, and in Cadene's code."""
  stem = ('conv1', 'bn1', 'conv2', 'bn2')
  names = {f'backbone/{name}': name for name in stem}
  for i in _blocks(net):
    ours, theirs = f'backbone/block{i}', f'block{i}'
    names[f'{ours}/skip'] = f'{theirs}.skip'
    names[f'{ours}/skip_bn'] = f'{theirs}.skipbn'
    for j in (1, 2, 3):
      # `rep` repeats ReLU, convolution and batch norm; block 1 lacks its first
      # ReLU.
      index = 3 * (j - 1) + (0 if i == 1 else 1)
      names[f'{ours}/sepconv{j}/depthwise'] = f'{theirs}.rep.{index}.conv1'
      names[f'{ours}/sepconv{j}/pointwise'] = f'{theirs}.rep.{index}.pointwise'
      names[f'{ours}/sepconv{j}/bn'] = f'{theirs}.rep.{index + 1}'
  for i in _tail(net):
    ours = f'backbone/sepconv{i}'
    names[f'{ours}/depthwise'] = f'conv{i + 2}.conv1'
    names[f'{ours}/pointwise'] = f'conv{i + 2}.pointwise'
    names[f'{ours}/bn'] = f'bn{i + 2}'
  return names


def mtnet_classification(net: Xception) -> dict[str, str]:
  """Names in an exported Class-net: `timm_xception` and its classifier."""
  return {**timm_xception(net), 'classifier': 'fc', '': 'fc'}


def keras_xception(net: Xception) -> dict[str, str]:
  """Names in `keras.applications.Xception`, where the stem is block 1.

  Skips have the names that `number_keras_skips` gives them.
  """
  names = {
    f'backbone/{ours}{i}': f'block1_conv{i}{theirs}'
    for i in (1, 2)
    for ours, theirs in (('conv', ''), ('bn', '_bn'))
  }
  skips = [*range(1, len(net.entry_widths) + 1), len(_blocks(net))]
  for number, i in enumerate(skips, 1):
    names[f'backbone/block{i}/skip'] = f'skip{number}_conv'
    names[f'backbone/block{i}/skip_bn'] = f'skip{number}_bn'

  def separable(ours, theirs):
    # A Keras layer holds both kernels.
    return {
      f'{ours}/depthwise': theirs,
      f'{ours}/pointwise': theirs,
      f'{ours}/bn': f'{theirs}_bn',
    }

  for i in _blocks(net):
    for j in (1, 2, 3):
      names |= separable(
        f'backbone/block{i}/sepconv{j}', f'block{i + 1}_sepconv{j}'
      )
  for i in _tail(net):
    names |= separable(
      f'backbone/sepconv{i}', f'block{len(_blocks(net)) + 2}_sepconv{i}'
    )
  return names


_KERAS_SKIP = re.compile(
  r'(?:(conv2d|convolution2d)|(?:batch_normalization|batchnormalization))'
  r'(?:_(\d+))?/(\d)'
)


def number_keras_skips(names: Collection[str]) -> dict[str, str]:
  """Maps names of a Keras file to names whose skips are numbered from 1.

  Keras does not name skips. It numbers them over the session in which the model
  was built (`conv2d_7`), in the order of the blocks.
  """
  found = {name: match for name in names if (match := _KERAS_SKIP.match(name))}
  renamed = {name: name for name in names}
  for kind in ('conv', 'bn'):
    session_numbers = {
      name: int(match[2] or 0)
      for name, match in found.items()
      if bool(match[1]) == (kind == 'conv')
    }
    in_order = sorted(set(session_numbers.values()))
    for name, number in session_numbers.items():
      skip = in_order.index(number) + 1
      renamed[name] = f'skip{skip}_{kind}/{found[name][3]}'
  return renamed


def without_module(names: Collection[str]) -> dict[str, str]:
  """Maps names of a PyTorch file to names without `DataParallel`'s prefix."""
  if all(name.startswith('module.') for name in names):
    return {name: name.removeprefix('module.') for name in names}
  return {name: name for name in names}


def without_prefix(prefix: str) -> Callable[[Collection[str]], dict[str, str]]:
  """Returns a function that removes a prefix from the names of a file.

  It puts 'beside/' before names without the prefix.
  """

  def canonical(names: Collection[str]) -> dict[str, str]:
    return {
      name: name.removeprefix(prefix)
      if name.startswith(prefix)
      else f'beside/{name}'
      for name in names
    }

  return canonical
