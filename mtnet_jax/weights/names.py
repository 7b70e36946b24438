"""What other people's code calls the layers of these networks.

One table per source: our layer -> theirs. Tables follow the sizes of the
network, so that narrow networks have them too, and may name layers that it
lacks (the skip of an identity block).
"""

import re


def _blocks(net):
  """Numbers of the blocks: entry flow, middle flow, exit block."""
  entry = len(net.entry_widths)
  return range(1, entry + net.middle_blocks + 2)


def _tail(net):
  return range(1, len(net.tail_widths) + 1)


def _aligned_xception(net, *, stem, block, skip, sepconv, tail, members):
  """The backbone of those that have the aligned Xception.

  Args:
    net: has its sizes.
    stem: number of a plain convolution -> its name, and that of its BN.
    block: number of a block -> its name.
    skip: ends of the names of a block's skip, and of its BN.
    sepconv: end of the name of a block's separable convolution, by its number.
    tail: number of a last separable convolution -> its name.
    members: ends of the names of the four layers of a separable convolution.
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


def torch_deeplab(net):
  """DeepLabv3+ of github.com/YudeWang/deeplabv3plus-pytorch."""
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


def mtnet_segmentation(net):
  """Coarse and Fine Seg-net in `inference.torch`: `torch_deeplab`, whole."""
  return {
    **torch_deeplab(net),
    'fine_layer/conv': 'fine_layer.0',
    'fine_layer/bn': 'fine_layer.1',
    'classifier': 'cls_conv',
  }


def timm_xception65(net):
  """`timm.models.xception_aligned`, variant xception65."""
  return _aligned_xception(
    net,
    stem=lambda i: (f'stem.{i - 1}.conv', f'stem.{i - 1}.bn'),
    block=lambda i: f'blocks.{i - 1}',
    skip=('.shortcut.conv', '.shortcut.bn'),
    sepconv='.stack.conv{}',
    tail=lambda i: f'blocks.{len(_blocks(net))}.stack.conv{i}',
    members=('.conv_dw', '.bn_dw', '.conv_pw', '.bn_pw'),
  )


def tensorflow_deeplab(net):
  """`xception_65` of github.com/tensorflow/models, research/deeplab."""
  entry = len(net.entry_widths)

  def stem(i):
    conv = f'xception_65/entry_flow/conv1_{i}'
    return conv, f'{conv}/BatchNorm'

  def block(i):
    if i <= entry:
      unit = f'entry_flow/block{i}/unit_1'
    elif i <= entry + net.middle_blocks:
      unit = f'middle_flow/block1/unit_{i - entry}'
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


def timm_xception(net):
  """`timm.models.xception`, variant legacy_xception; Cadene's names too."""
  stem = ('conv1', 'bn1', 'conv2', 'bn2')
  names = {f'backbone/{name}': name for name in stem}
  for i in _blocks(net):
    ours, theirs = f'backbone/block{i}', f'block{i}'
    names[f'{ours}/skip'] = f'{theirs}.skip'
    names[f'{ours}/skip_bn'] = f'{theirs}.skipbn'
    for j in (1, 2, 3):
      # A sequence of ReLU, convolution and BN; the first block has no first
      # ReLU.
      place = 3 * (j - 1) + (0 if i == 1 else 1)
      names[f'{ours}/sepconv{j}/depthwise'] = f'{theirs}.rep.{place}.conv1'
      names[f'{ours}/sepconv{j}/pointwise'] = f'{theirs}.rep.{place}.pointwise'
      names[f'{ours}/sepconv{j}/bn'] = f'{theirs}.rep.{place + 1}'
  for i in _tail(net):
    ours = f'backbone/sepconv{i}'
    names[f'{ours}/depthwise'] = f'conv{i + 2}.conv1'
    names[f'{ours}/pointwise'] = f'conv{i + 2}.pointwise'
    names[f'{ours}/bn'] = f'bn{i + 2}'
  return names


def mtnet_classification(net):
  """Class-net in `inference.torch`: `timm_xception`, and its classifier."""
  return {**timm_xception(net), 'classifier': 'fc', '': 'fc'}


def keras_xception(net):
  """`keras.applications.Xception`; skips as `number_keras_skips` calls them.

  Keras counts the stem as block 1.
  """
  names = {
    f'backbone/{ours}{i}': f'block1_conv{i}{theirs}'
    for i in (1, 2)
    for ours, theirs in (('conv', ''), ('bn', '_bn'))
  }
  skips = [*range(1, len(net.entry_widths) + 1), len(_blocks(net))]
  for place, i in enumerate(skips, 1):
    names[f'backbone/block{i}/skip'] = f'skip{place}_conv'
    names[f'backbone/block{i}/skip_bn'] = f'skip{place}_bn'

  def separable(ours, theirs):
    # One layer of Keras's holds both kernels.
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


def number_keras_skips(names):
  """Names of a Keras file -> the same with skips numbered from 1.

  Skips have no names of their own: Keras numbers them through the session in
  which the model was built (`conv2d_7`), in the order of the blocks.
  """
  found = {name: match for name in names if (match := _KERAS_SKIP.match(name))}
  renamed = {name: name for name in names}
  for kind in ('conv', 'bn'):
    of_kind = {
      name: int(match[2] or 0)
      for name, match in found.items()
      if bool(match[1]) == (kind == 'conv')
    }
    places = {n: i for i, n in enumerate(sorted(set(of_kind.values())), 1)}
    for name, number in of_kind.items():
      renamed[name] = f'skip{places[number]}_{kind}/{found[name][3]}'
  return renamed


def without_module(names):
  """Names of a PyTorch file -> without the prefix of `DataParallel`."""
  if all(name.startswith('module.') for name in names):
    return {name: name.removeprefix('module.') for name in names}
  return {name: name for name in names}


def below(prefix):
  """Names of a file -> without a prefix; those of its other parts 'beside/'."""

  def canonical(names):
    return {
      name: name.removeprefix(prefix)
      if name.startswith(prefix)
      else f'beside/{name}'
      for name in names
    }

  return canonical
