"""Where public weights come from, and what each source's networks do.

What sources differ in, beside names, are the fields of our networks: a file's
weights compute what they were trained for only with the fields of its source.
"""

from collections.abc import Callable
import dataclasses
import re

from mtnet_jax.weights import names as weight_names

# Our image is windowed CT in [-1, 1], three times the same: the range of an
# image whose black is -1 and whose white is 1.
_MINUS_ONE_TO_ONE = {'input_mean': (0.0,), 'input_std': (1.0,)}
# (x + 1) / 2.
_ZERO_TO_ONE = {'input_mean': (-1.0,), 'input_std': (2.0,)}

# As published, except the epsilon: see `xception.AlignedXceptionFields`.
_ALIGNED = {'tail_dilation': 2, 'skip_relu': False, **_MINUS_ONE_TO_ONE}
_XCEPTION = {'skip_relu': False, **_MINUS_ONE_TO_ONE}

_DECODER = ('low_level', 'decoder1', 'decoder2', 'classifier')


# Our leaf -> the end of their tensor's name. A leaf of one kind of layers comes
# as 'LAYER/LEAF'.
_TORCH_LEAVES = {
  'kernel': '.weight',
  'scale': '.weight',
  'bias': '.bias',
  'mean': '.running_mean',
  'var': '.running_var',
}
_TENSORFLOW_LEAVES = {
  'kernel': '/weights',
  'depthwise/kernel': '/depthwise_weights',
  'scale': '/gamma',
  'bias': '/beta',
  'mean': '/moving_mean',
  'var': '/moving_variance',
}
# Keras's are numbered within their layer; see `files`.
_KERAS_LEAVES = {
  'kernel': '/0',
  'pointwise/kernel': '/1',
  'scale': '/0',
  'bias': '/1',
  'mean': '/2',
  'var': '/3',
}

# The transposition of their kernels to ours, by the layer as above.
_FROM_OIHW = {'': (2, 3, 1, 0)}
# Depthwise kernels are (3, 3, C, 1) there and (3, 3, 1, C) here.
_FROM_HWIO = {'': (0, 1, 2, 3), 'depthwise': (0, 1, 3, 2)}


@dataclasses.dataclass(frozen=True)
class Source:
  """One origin of weights.

  Attributes:
    title: what a user knows it as.
    task: 'segmentation' or 'classification'.
    signature: a name that only its files have.
    layers: network -> table of our layers and theirs; see `names`.
    leaves: our leaf -> the end of their tensor's name.
    axes: kind of layer -> the transposition of a kernel of theirs to ours.
    canonical: names in a file -> names as in the tables.
    dropped: patterns of the names for which our network has no place.
    newly_initialised: what the file lacks.
    fields: of our network, that its weights need.
  """

  title: str
  task: str
  signature: str
  layers: Callable[..., dict[str, str]]
  leaves: dict[str, str]
  axes: dict[str, tuple[int, ...]]
  canonical: Callable[..., dict[str, str]]
  dropped: tuple[str, ...]
  newly_initialised: tuple[str, ...]
  fields: dict

  def leaf(self, ours, theirs, leaf):
    """Their tensor, of our layer, theirs and our leaf."""
    kind = ours.rpartition('/')[2]
    return theirs + self.leaves.get(f'{kind}/{leaf}', self.leaves[leaf])

  def kernel_axes(self, ours):
    """The transposition of a kernel of theirs to that of our layer."""
    return self.axes.get(ours.rpartition('/')[2], self.axes[''])

  def drops(self, name):
    """Whether a name is one of those without a place."""
    return any(re.fullmatch(pattern, name) for pattern in self.dropped)


_TORCH = {
  'leaves': _TORCH_LEAVES,
  'axes': _FROM_OIHW,
  'canonical': weight_names.without_module,
}
_BATCH_COUNTERS = r'.*\.num_batches_tracked'

SOURCES = (
  # lib/net and lib/datasets/transform.py of its repository: PyTorch's default
  # epsilon; ReLU in place before the identity skip is added; dilation 1 at
  # output stride 16; pixels / 255.
  Source(
    title='PyTorch DeepLabv3+ Xception-65 (YudeWang)',
    task='segmentation',
    signature='aspp.branch1.0.weight',
    layers=weight_names.torch_deeplab,
    dropped=(r'cls_conv\.(weight|bias)', _BATCH_COUNTERS),
    newly_initialised=('classifier',),
    fields={
      'bn_epsilon': 1e-5,
      'tail_dilation': 1,
      'skip_relu': True,
      **_ZERO_TO_ONE,
    },
    **_TORCH,
  ),
  # timm/models/xception_aligned.py: eps .001; mean and std 0.5 of [0, 1];
  # dilation 2 at output_stride=16.
  Source(
    title='timm xception65',
    task='segmentation',
    signature='blocks.0.stack.conv1.conv_dw.weight',
    layers=weight_names.timm_xception65,
    dropped=(r'head\.fc\.(weight|bias)', _BATCH_COUNTERS),
    newly_initialised=('aspp', *_DECODER),
    fields={'bn_epsilon': 1e-3, **_ALIGNED},
    **_TORCH,
  ),
  # research/deeplab/core/feature_extractor.py: batch_norm_epsilon=1e-3;
  # 2 / 255 * x - 1. Its pyramid and decoder are of separable convolutions.
  Source(
    title='TensorFlow DeepLab xception_65',
    task='segmentation',
    signature='xception_65/entry_flow/conv1_1/weights',
    layers=weight_names.tensorflow_deeplab,
    leaves=_TENSORFLOW_LEAVES,
    axes=_FROM_HWIO,
    canonical=lambda names: {name: name for name in names},
    dropped=(
      r'(?:.*/)?global_step',
      r'.*/(?:Momentum|ExponentialMovingAverage|Adam|Adam_1)',
      r'(?:xception_65/)?logits/.*',
      r'(?:aspp\d|image_pooling|concat_projection|decoder)'
      r'(?:_depthwise|_pointwise)?/.*',
    ),
    newly_initialised=('aspp', *_DECODER),
    fields={'bn_epsilon': 1e-3, **_ALIGNED},
  ),
  # keras/src/applications/xception.py: BatchNormalization's default epsilon;
  # pooling with padding='same'; preprocess_input in mode 'tf'.
  Source(
    title='Keras Xception',
    task='classification',
    signature='block1_conv1/0',
    layers=weight_names.keras_xception,
    leaves=_KERAS_LEAVES,
    axes=_FROM_HWIO,
    canonical=weight_names.number_keras_skips,
    dropped=(r'predictions/[01]',),
    newly_initialised=('classifier', 'bias'),
    fields={'bn_epsilon': 1e-3, 'pool_padding': 'same', **_XCEPTION},
  ),
  # timm/models/xception.py: PyTorch's default epsilon; MaxPool2d(3, 2, 1);
  # mean and std 0.5 of [0, 1].
  Source(
    title='timm legacy_xception',
    task='classification',
    signature='block1.rep.0.conv1.weight',
    layers=weight_names.timm_xception,
    dropped=(r'fc\.(weight|bias)', _BATCH_COUNTERS),
    newly_initialised=('classifier', 'bias'),
    fields={'bn_epsilon': 1e-5, 'pool_padding': 'symmetric', **_XCEPTION},
    **_TORCH,
  ),
)

# Every field that a source may set.
FIELDS = tuple(sorted({name for s in SOURCES for name in s.fields}))


def recognise(names):
  """The source of a file by its names, and them -> those of the tables.

  Returns:
    (source, {name in the file: name in the tables}), or (None, None).
  """
  for source in SOURCES:
    canonical = source.canonical(names)
    if source.signature in canonical.values():
      return source, canonical
  return None, None
