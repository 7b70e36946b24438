"""Public weights become variables of our networks.

The files are made up, for tiny networks. `test_parity_*.py` compare names with
the libraries of the sources, if these are installed.
"""

import hashlib

from flax import traverse_util
import h5py
import main_job
import numpy as np
import pytest
import weights_made_up

from mtnet_jax import pretrained
from mtnet_jax.models import mtnet
from mtnet_jax.weights import load as weight_load

_VARIABLE_SHAPES = weight_load._variable_shapes


def flat(tree):
  return traverse_util.flatten_dict(tree, sep='/')


@pytest.fixture(autouse=True)
def _shapes_once(monkeypatch):
  # Tracing networks for their shapes would take most of the time.
  monkeypatch.setattr(
    weight_load, '_variable_shapes', weights_made_up.variable_shapes
  )


# Names and layouts.


def test_sizes_of_a_network_may_be_lists():
  lists = {k: [*v] for k, v in weights_made_up.CLASS.items() if 'widths' in k}
  net = weights_made_up.net_of('keras_xception')
  assert _VARIABLE_SHAPES(net.clone(**lists)) == _VARIABLE_SHAPES(net)


def test_every_tensor_is_used_or_dropped_by_name(name, tmp_path):
  arrays, ours_of = weights_made_up.tensors(name)
  weights = weights_made_up.load(
    name, weights_made_up.write(name, tmp_path, arrays)
  )
  loaded = flat(weights.variables)
  assert set(loaded) == set(ours_of.values())
  assert set(weights.dropped) == set(weights_made_up.BESIDE[name])
  everything = weights_made_up.variable_shapes(weights_made_up.net_of(name))
  assert {path.split('/')[1] for path in everything.keys() - loaded.keys()} == (
    set(weights.newly_initialised)
  )
  for theirs, ours in ours_of.items():
    value = loaded[ours]
    assert value.shape == everything[ours] and value.dtype == np.float32
    if ours == 'params/backbone/conv1/kernel':
      value = value[:, :, :3]
    # The transposition keeps the values.
    np.testing.assert_array_equal(
      np.sort(value, axis=None), np.sort(arrays[theirs], axis=None)
    )


def test_kernels_are_transposed_as_derived():
  """Expected positions of one entry of each kind of kernel, by hand."""
  for name, ours, theirs_at, ours_at in (
    # PyTorch: (out, in, row, column); depthwise (channel, 1, row, column).
    ('timm_xception', 'backbone/conv1', (1, 2, 0, 1), (0, 1, 2, 1)),
    (
      'timm_xception',
      'backbone/block2/sepconv1/depthwise',
      (3, 0, 2, 1),
      (2, 1, 0, 3),
    ),
    # Keras and TensorFlow: (row, column, in, out); depthwise (row, column,
    # channel, 1).
    ('keras_xception', 'backbone/conv1', (0, 1, 2, 3), (0, 1, 2, 3)),
    (
      'tensorflow_deeplab',
      'backbone/block2/sepconv1/depthwise',
      (2, 1, 3, 0),
      (2, 1, 0, 3),
    ),
  ):
    arrays, ours_of = weights_made_up.tensors(name)
    (theirs,) = (k for k, v in ours_of.items() if v == f'params/{ours}/kernel')
    axes = weights_made_up.source(name).kernel_axes(ours)
    transposed = arrays[theirs].transpose(axes)
    assert transposed[ours_at] == arrays[theirs][theirs_at]


@pytest.mark.parametrize(
  ('name', 'ours', 'theirs'),
  [
    # As published; see the sources' own code.
    ('torch_deeplab', 'backbone/block20/skip', 'backbone.block20.skip.weight'),
    (
      'torch_deeplab',
      'backbone/sepconv3/pointwise',
      'backbone.conv5.pointwise.weight',
    ),
    ('torch_deeplab', 'aspp/branch0/conv', 'aspp.branch1.0.weight'),
    ('torch_deeplab', 'aspp/image_pooling/conv', 'aspp.branch5_conv.weight'),
    ('torch_deeplab', 'low_level/conv', 'shortcut_conv.0.weight'),
    ('torch_deeplab', 'decoder2/conv', 'cat_conv.4.weight'),
    ('timm_xception65', 'backbone/conv2', 'stem.1.conv.weight'),
    (
      'timm_xception65',
      'backbone/block20/sepconv2/pointwise',
      'blocks.19.stack.conv2.conv_pw.weight',
    ),
    (
      'timm_xception65',
      'backbone/sepconv1/depthwise',
      'blocks.20.stack.conv1.conv_dw.weight',
    ),
    (
      'tensorflow_deeplab',
      'backbone/block19/sepconv3/depthwise',
      'xception_65/middle_flow/block1/unit_16/xception_module/'
      'separable_conv3_depthwise/depthwise_weights',
    ),
    (
      'tensorflow_deeplab',
      'backbone/block3/skip',
      'xception_65/entry_flow/block3/unit_1/xception_module/shortcut/weights',
    ),
    (
      'timm_xception',
      'backbone/block1/sepconv2/depthwise',
      'block1.rep.3.conv1.weight',
    ),
    (
      'timm_xception',
      'backbone/block12/sepconv2/pointwise',
      'block12.rep.4.pointwise.weight',
    ),
    ('timm_xception', 'backbone/sepconv2/depthwise', 'conv4.conv1.weight'),
    (
      'keras_xception',
      'backbone/block12/sepconv1/pointwise',
      'block13_sepconv1/1',
    ),
    ('keras_xception', 'backbone/sepconv2/depthwise', 'block14_sepconv2/0'),
    ('keras_xception', 'backbone/block12/skip', 'skip4_conv/0'),
  ],
)
def test_names_of_the_paper_s_size(name, ours, theirs):
  origin = weights_made_up.source(name)
  net = (
    mtnet.CoarseSegNet()
    if name in weights_made_up.SEGMENTATION
    else mtnet.ClassNet()
  )
  assert origin.leaf(ours, origin.layers(net)[ours], 'kernel') == theirs


def test_the_mask_channel_is_the_mean_of_the_others(tmp_path):
  path = weights_made_up.write('timm_xception', tmp_path)
  with_mask = weights_made_up.load('timm_xception', path)
  without = weights_made_up.load('timm_xception', path, use_coarse_mask=False)
  kernel = with_mask.variables['params']['backbone']['conv1']['kernel']
  plain = without.variables['params']['backbone']['conv1']['kernel']
  assert kernel.shape == (3, 3, 4, 4) and plain.shape == (3, 3, 3, 4)
  np.testing.assert_array_equal(kernel[:, :, :3], plain)
  np.testing.assert_allclose(kernel[:, :, 3], plain.mean(2), rtol=1e-6)


def test_fields_of_the_sources():
  """The values are those of the sources' code, cited in `sources`."""
  fields = {
    name: weights_made_up.source(name).fields for name in weights_made_up.BESIDE
  }
  assert {name: f['bn_epsilon'] for name, f in fields.items()} == {
    'torch_deeplab': 1e-5,
    'timm_xception65': 1e-3,
    'tensorflow_deeplab': 1e-3,
    'keras_xception': 1e-3,
    'timm_xception': 1e-5,
  }
  assert [name for name, f in fields.items() if f['skip_relu']] == [
    'torch_deeplab'
  ]
  assert [n for n, f in fields.items() if f.get('tail_dilation') == 1] == [
    'torch_deeplab'
  ]
  assert fields['keras_xception']['pool_padding'] == 'same'
  assert fields['timm_xception']['pool_padding'] == 'symmetric'
  # Ranges of black to white: [0, 1] for pixels / 255, [-1, 1] for the others.
  for name, f in fields.items():
    (mean,), (std,) = f['input_mean'], f['input_std']
    ends = [(x - mean) / std for x in (-1, 1)]
    assert ends == ([0, 1] if name == 'torch_deeplab' else [-1, 1]), name


# The formats.


def test_both_layouts_of_keras_give_the_same_variables(tmp_path):
  arrays, _ = weights_made_up.tensors('keras_xception')
  older = weights_made_up.write_keras_2(arrays, tmp_path / 'a.h5')
  newer = weights_made_up.write_keras_3(arrays, tmp_path / 'b.weights.h5')
  # `model.save` writes them one level deeper.
  with h5py.File(older) as source, h5py.File(tmp_path / 'c.h5', 'w') as saved:
    source.copy(source['/'], saved, name='model_weights')
    saved['model_weights'].attrs.update(source.attrs)
  notop = {k: v for k, v in arrays.items() if 'predictions' not in k}
  notop = weights_made_up.write_keras_2(notop, tmp_path / 'd.h5')
  expected = flat(weights_made_up.load('keras_xception', older).variables)
  # Skips are identified by the order of their numbers.
  np.testing.assert_array_equal(
    expected['params/backbone/block2/skip/kernel'], arrays['skip2_conv/0']
  )
  for path in (newer, tmp_path / 'c.h5', notop):
    found = flat(weights_made_up.load('keras_xception', path).variables)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_array_equal(found[key], value)


def test_half_precision_becomes_float32(tmp_path):
  arrays, _ = weights_made_up.tensors('timm_xception')
  halves = {key: value.astype(np.float16) for key, value in arrays.items()}
  path = weights_made_up.write('timm_xception', tmp_path, halves)
  for value in flat(
    weights_made_up.load('timm_xception', path).variables
  ).values():
    assert value.dtype == np.float32


@pytest.mark.extra
@pytest.mark.parametrize('new_format', (True, False))
def test_pytorch_files_with_and_without_module(tmp_path, new_format):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  arrays, _ = weights_made_up.tensors('torch_deeplab')
  plain = weights_made_up.write('torch_deeplab', tmp_path, arrays)
  expected = flat(weights_made_up.load('torch_deeplab', plain).variables)
  for prefix in ('', 'module.'):
    path = tmp_path / f'{prefix}net.pth'
    torch.save(
      {prefix + key: torch.from_numpy(v) for key, v in arrays.items()},
      path,
      _use_new_zipfile_serialization=new_format,
    )
    weights = weights_made_up.load('torch_deeplab', path)
    found = flat(weights.variables)
    assert set(weights.dropped) == {
      f'{prefix}cls_conv.weight',
      f'{prefix}cls_conv.bias',
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_array_equal(found[key], value)


# The command.


def test_a_report_describes_a_file(tmp_path):
  path = weights_made_up.write('timm_xception65', tmp_path)
  report = pretrained.report(path, weights_made_up.net_of('timm_xception65'))
  for word in (
    'timm xception65',
    'CoarseSegNet',
    'head.fc.bias, head.fc.weight',
    'aspp, low_level, decoder1, decoder2, classifier',
    'bn_epsilon=0.001',
    f'--config.pretrained.segmentation={path}',
    hashlib.sha256(path.read_bytes()).hexdigest(),
  ):
    assert word in report, report


def test_inspect_refuses_in_one_line(tmp_path):
  path = weights_made_up.write('timm_xception65', tmp_path)
  done = main_job.run(
    main_job.module('mtnet_jax.pretrained', f'--inspect={path}')
  )
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert 'does not fit CoarseSegNet' in line and 'shapes differ' in line
