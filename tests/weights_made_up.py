"""Makes weight files in the formats of public weights, with random values."""

import functools

from flax import traverse_util
import h5py
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

from mtnet_jax import pretrained
from mtnet_jax.models import mtnet
from mtnet_jax.weights import sources

# All blocks of the entry flow and of the tail have different widths, so that a
# wrong order cannot go unnoticed.
SEG = {
  'stem_widths': (4, 6),
  'entry_widths': (8, 10, 12),
  'middle_blocks': 2,
  'exit_width': 14,
  'tail_widths': (16, 18, 20),
  'aspp_features': 8,
  'low_level_features': 5,
  'decoder_features': 7,
}
CLASS = {
  'stem_widths': (4, 6),
  'entry_widths': (8, 10, 12),
  'middle_blocks': 2,
  'exit_width': 14,
  'tail_widths': (16, 18),
}
# Tensors in the files that our networks do not use.
BESIDE = {
  'torch_deeplab': {'cls_conv.weight': (21, 7, 1, 1), 'cls_conv.bias': (21,)},
  'timm_xception65': {'head.fc.weight': (9, 20), 'head.fc.bias': (9,)},
  'tensorflow_deeplab': {
    'global_step': (1,),
    'logits/semantic/biases': (21,),
    'aspp1_depthwise/depthwise_weights': (3, 3, 20, 1),
    'concat_projection/weights': (1, 1, 40, 8),
    'decoder/decoder_conv0_pointwise/BatchNorm/gamma': (8,),
    'xception_65/entry_flow/conv1_1/weights/Momentum': (3, 3, 3, 4),
  },
  'keras_xception': {'predictions/0': (18, 9), 'predictions/1': (9,)},
  'timm_xception': {'fc.weight': (9, 18), 'fc.bias': (9,)},
}
SEGMENTATION = ('torch_deeplab', 'timm_xception65', 'tensorflow_deeplab')


def source(name):
  """Returns the source whose table has this name."""
  (found,) = (s for s in sources.SOURCES if s.layers.__name__ == name)
  return found


def net_of(name, **kwargs):
  """Makes the tiny network that the files of a source fit."""
  if name in SEGMENTATION:
    return mtnet.CoarseSegNet(**{**SEG, **kwargs})
  return mtnet.ClassNet(**{**CLASS, **kwargs})


@functools.cache
def variable_shapes(net):
  """Returns the shapes of our variables, by name."""
  inputs = [jnp.zeros((1, 64, 64, c)) for c in (3, 1)]
  if isinstance(net, mtnet.CoarseSegNet):
    inputs.pop()
  variables = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), *inputs
  )
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def tensors(name, net=None, seed=0):
  """Draws the tensors of a file that fits a network.

  Returns:
    Their name -> array, and their name -> our name.
  """
  origin, net = source(name), net or net_of(name)
  layers = origin.layers(net)
  rng = np.random.default_rng(seed)
  arrays = {
    theirs: rng.uniform(size=shape).astype(np.float32)
    for theirs, shape in BESIDE[name].items()
  }
  ours_of = {}
  for ours, shape in variable_shapes(net).items():
    _, *layer, leaf = ours.split('/')
    if (layer or [leaf])[0] in origin.newly_initialised:
      continue
    layer = '/'.join(layer)
    if layer == 'backbone/conv1':
      shape = (3, 3, 3, shape[-1])
    if leaf == 'kernel':
      axes = np.argsort(origin.kernel_axes(layer))
      shape = tuple(shape[i] for i in axes)
    theirs = origin.leaf(layer, layers[layer], leaf)
    arrays[theirs] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    ours_of[theirs] = ours
  return arrays, ours_of


def write(name, directory, arrays=None):
  """Writes a file in the format of its source, and returns its path."""
  arrays = tensors(name)[0] if arrays is None else arrays
  if name == 'keras_xception':
    return write_keras_2(arrays, directory / 'xception.h5')
  if name == 'tensorflow_deeplab':
    return write_tensorflow(arrays, directory / 'model.ckpt')
  path = directory / f'{name}.safetensors'
  safetensors_numpy.save_file(arrays, path)
  return path


def _keras_layers(arrays, first=7):
  """Groups tensors by Keras's layers: layer -> index -> tensor.

  Keras numbers skip layers through all models of a process. Here they start at
  `first`, as if there had been other models before.
  """
  layers = {}
  for name, array in arrays.items():
    layer, index = name.split('/')
    for kind, word in (('conv', 'conv2d'), ('bn', 'batch_normalization')):
      if layer.startswith('skip') and layer.endswith(kind):
        layer = f'{word}_{int(layer[4 : layer.index("_")]) + first}'
    layers.setdefault(layer, {})[int(index)] = array
  return layers


def write_keras_2(arrays, path):
  """Writes the layout of keras-applications, with names in attributes."""
  with h5py.File(path, 'w') as file:
    layers = _keras_layers(arrays)
    # Keras also lists layers without weights.
    file.attrs['layer_names'] = [b'input_1', *(n.encode() for n in layers)]
    file.create_group('input_1').attrs['weight_names'] = []
    for layer, values in layers.items():
      group = file.create_group(layer)
      names = [f'{layer}/weight{i}:0' for i in sorted(values)]
      group.attrs['weight_names'] = [name.encode() for name in names]
      for i, weight in enumerate(names):
        group[weight] = values[i]
  return path


def write_keras_3(arrays, path):
  """Writes the layout of `.weights.h5`: a group per layer, with its name."""
  with h5py.File(path, 'w') as file:
    for i, (layer, values) in enumerate(_keras_layers(arrays).items()):
      group = file.create_group(f'layers/layer_{i}/vars')
      group.attrs['name'] = layer
      for index, array in values.items():
        group[str(index)] = array
    file.create_group('layers/activation')
  return path


def write_tensorflow(arrays, prefix):
  """Writes a TensorFlow checkpoint under a prefix."""
  import tensorflow as tf

  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=list(arrays),
    shape_and_slices=[''] * len(arrays),
    tensors=list(arrays.values()),
  )
  return prefix


def load(name, path, **kwargs):
  """Loads a file into the network of `net_of`; returns `pretrained.Weights`."""
  net = net_of(name, **kwargs)
  if name in SEGMENTATION:
    return pretrained.load_deeplab(path, net)
  return pretrained.load_xception(path, net)
