"""Describes the sources of public weights and the networks of each source.

Sources differ in names and in the fields of our networks: weights give the
results they were trained for only with the fields of their source.
"""

from collections.abc import Callable
from collections.abc import Collection
import dataclasses
import re
from typing import Any

import numpy as np

from mtnet_jax.weights import names as weight_names

# Input ranges for our images, windowed CT in [-1, 1] in three equal channels.
_MINUS_ONE_TO_ONE = {'input_mean': (0.0,), 'input_std': (1.0,)}
# (x + 1) / 2.
_ZERO_TO_ONE = {'input_mean': (-1.0,), 'input_std': (2.0,)}

# The published networks, without epsilon; see `xception.AlignedXceptionFields`.
_ALIGNED = {'tail_dilation': 2, 'skip_relu': False, **_MINUS_ONE_TO_ONE}
_XCEPTION = {'skip_relu': False, **_MINUS_ONE_TO_ONE}

_DECODER = ('low_level', 'decoder1', 'decoder2', 'classifier')


# Our leaf -> suffix of their tensor. 'LAYER/LEAF' is for one kind of layer.
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
# Keras tensors are numbered within their layer; see `hdf5`.
_KERAS_LEAVES = {
  'kernel': '/0',
  'pointwise/kernel': '/1',
  'scale': '/0',
  'bias': '/1',
  'mean': '/2',
  'var': '/3',
}

# Kind of layer -> transposition of their kernels to ours; '' is for all others.
_FROM_OIHW: dict[str, tuple[int, ...]] = {'': (2, 3, 1, 0)}
# Depthwise kernels are (3, 3, C, 1) there and (3, 3, 1, C) here.
_FROM_HWIO: dict[str, tuple[int, ...]] = {
  '': (0, 1, 2, 3),
  'depthwise': (0, 1, 3, 2),
}


@dataclasses.dataclass(frozen=True)
class Source:
  """A source of weights: a network published by someone, in one format.

  Methods name our variables as 'params/backbone/conv1/kernel', and our layers
  as 'backbone/conv1'.

  Attributes:
    title: name of the source in messages.
    task: 'segmentation' or 'classification'.
    signature: a tensor name by which its files are recognised.
    layers: network -> table of our layers and theirs; see `names`.
    leaves: our leaf -> suffix of their tensor's name.
    axes: kind of layer -> transposition of their kernel to ours.
    canonical: names in a file -> {name in the file: name in the tables}.
    dropped: patterns of canonical names that our network does not use.
    newly_initialised: our layers that the file lacks.
    fields: fields of our network that the weights need; None if the file itself
      holds them, see `exported`.
    has_mask: whether Class-net's first kernel has a channel for the mask.
    linear: our variables that are a linear layer in the file: there a 1 x 1
      kernel is a matrix, and a scalar is a vector of one.
  """

  title: str
  task: str
  signature: str
  layers: Callable[[Any], dict[str, str]]
  leaves: dict[str, str]
  axes: dict[str, tuple[int, ...]]
  canonical: Callable[[Collection[str]], dict[str, str]]
  dropped: tuple[str, ...]
  newly_initialised: tuple[str, ...]
  fields: dict[str, Any] | None
  has_mask: bool = False
  linear: tuple[str, ...] = ()

  def leaf(self, ours: str, theirs: str, leaf: str) -> str:
    """Returns the name of their tensor.

    Args:
      ours: our layer.
      theirs: their name of the layer.
      leaf: our leaf, such as 'kernel'.
    """
    kind = ours.rpartition('/')[2]
    return theirs + self.leaves.get(f'{kind}/{leaf}', self.leaves[leaf])

  def kernel_axes(self, ours: str) -> tuple[int, ...]:
    """Returns the transposition of their kernel to that of our layer."""
    return self.axes.get(ours.rpartition('/')[2], self.axes[''])

  def file_shape(self, ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of their tensor for our variable of a shape."""
    full = self._transposed_shape(ours, shape)
    if ours in self.linear:
      return full[:2] or (1,)
    return full

  def _transposed_shape(
    self, ours: str, shape: tuple[int, ...]
  ) -> tuple[int, ...]:
    axes = self._axes_of_variable(ours)
    if axes is None:
      return shape
    return tuple(shape[axes.index(i)] for i in range(len(shape)))

  def _axes_of_variable(self, ours: str) -> tuple[int, ...] | None:
    layer, _, leaf = ours.rpartition('/')
    return self.kernel_axes(layer) if leaf == 'kernel' else None

  def to_ours(
    self, ours: str, value: np.ndarray, shape: tuple[int, ...]
  ) -> np.ndarray:
    """Converts their tensor to our variable, which has a shape."""
    axes = self._axes_of_variable(ours)
    value = value.reshape(self._transposed_shape(ours, shape))
    return value if axes is None else value.transpose(axes)

  def to_file(self, ours: str, value: np.ndarray) -> np.ndarray:
    """Converts our variable to their tensor."""
    axes = self._axes_of_variable(ours)
    shape = self.file_shape(ours, value.shape)
    if axes is not None:
      value = value.transpose([axes.index(i) for i in range(len(axes))])
    return value.reshape(shape)

  def drops(self, name: str) -> bool:
    """Whether our network does not use a canonical name."""
    return any(re.fullmatch(pattern, name) for pattern in self.dropped)


_TORCH: dict[str, Any] = {
  'leaves': _TORCH_LEAVES,
  'axes': _FROM_OIHW,
  'canonical': weight_names.without_module,
}
_BATCH_COUNTERS = r'.*\.num_batches_tracked'

# The first member of an exported average. The other networks are dropped.
_EXPORTED = 'members.0.{}.'
_MTNET: dict[str, Any] = {
  'leaves': _TORCH_LEAVES,
  'axes': _FROM_OIHW,
  'dropped': ('beside/.*',),
  'newly_initialised': (),
  'fields': None,
}

SOURCES = (
  # mtnet_jax/inference/torch, as `mtnet_jax.export` writes it.
  Source(
    title='Coarse Seg-net exported to PyTorch',
    task='segmentation',
    signature='aspp.branch1.0.weight',
    layers=weight_names.mtnet_segmentation,
    canonical=weight_names.without_prefix(_EXPORTED.format('coarse_net')),
    **_MTNET,
  ),
  Source(
    title='Class-net exported to PyTorch',
    task='classification',
    signature='block1.rep.0.conv1.weight',
    layers=weight_names.mtnet_classification,
    canonical=weight_names.without_prefix(_EXPORTED.format('class_net')),
    has_mask=True,
    linear=('params/classifier/kernel', 'params/bias'),
    **_MTNET,
  ),
  # The fields follow lib/net and lib/datasets/transform.py of its repository:
  # PyTorch's default epsilon; in-place ReLU before the identity skip is added;
  # dilation 1 at output stride 16; pixels / 255.
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
  # timm/models/xception_aligned.py: eps=.001; images in [0, 1] with mean and
  # std 0.5; dilation 2 at output_stride=16.
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
  # 2 / 255 * x - 1. Its pyramid and decoder, of separable convolutions, do not
  # fit ours.
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
  # images in [0, 1] with mean and std 0.5.
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

# Fields of an export that the shapes of its tensors do not determine.
EXPORTED_FIELDS = {
  'segmentation': (
    'aspp_rates',
    'bn_epsilon',
    'input_mean',
    'input_std',
    'skip_relu',
    'tail_dilation',
  ),
  'classification': (
    'bn_epsilon',
    'exit_pool',
    'input_mean',
    'input_std',
    'pool_padding',
    'skip_relu',
    'tail_dilation',
  ),
}
# Every field that a source may set.
FIELDS = tuple(
  sorted(
    {name for s in SOURCES for name in (s.fields or EXPORTED_FIELDS[s.task])}
  )
)


def recognise(
  names: Collection[str], task: str | None = None
) -> tuple[Source, dict[str, str]] | tuple[None, None]:
  """Recognises the source of a file by the names of its tensors.

  Args:
    names: names of all tensors.
    task: the task to find weights for; None for any.

  Returns:
    (source, {name in the file: name in the tables}), or (None, None).
  """
  for source in SOURCES:
    canonical = source.canonical(names)
    if source.signature in canonical.values() and task in (None, source.task):
      return source, canonical
  return None, None
