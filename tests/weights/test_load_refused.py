"""Files of weights that are refused, and the messages about them."""

import pickle
import sys

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import weights_made_up

from mtnet_jax.system import errors
from mtnet_jax.weights import files
from mtnet_jax.weights import load


def refused(name, path, *words, **kwargs):
  """Fails unless a file is refused with these words in the message."""
  with pytest.raises(errors.InputError) as error:
    weights_made_up.load(name, path, **kwargs)
  message = str(error.value)
  for word in (path.name, *words):
    assert str(word) in message, message


def test_a_file_of_the_wrong_network_is_refused(tmp_path):
  path = weights_made_up.write('timm_xception', tmp_path)
  refused('timm_xception65', path, 'classification', 'CoarseSegNet')
  path = tmp_path / 'other.safetensors'
  safetensors_numpy.save_file({'layer.weight': np.zeros(3)}, path)
  refused('timm_xception', path, 'no known source', 'layer.weight')


def test_both_sides_of_a_mismatch_are_named(tmp_path):
  arrays, _ = weights_made_up.tensors('timm_xception')
  arrays['block3.rep.9.weight'] = arrays.pop('block3.rep.2.weight')
  path = weights_made_up.write('timm_xception', tmp_path, arrays)
  refused(
    'timm_xception',
    path,
    'lacks block3.rep.2.weight',
    'has unknown block3.rep.9.weight',
    'Nothing was loaded',
  )


def test_another_depth_is_refused_with_the_first_names(name, tmp_path):
  path = weights_made_up.write(name, tmp_path)
  refused(name, path, 'has unknown', 'and', 'more', middle_blocks=1)
  refused(name, path, 'lacks', 'and', 'more', middle_blocks=3)


def test_shapes_that_differ_are_refused(name, tmp_path):
  arrays, ours_of = weights_made_up.tensors(name)
  (theirs,) = (
    key
    for key, ours in ours_of.items()
    if ours == 'params/backbone/block2/sepconv2/pointwise/kernel'
  )
  # The number of values is right, but not the shape.
  arrays[theirs] = arrays[theirs][..., ::-1].copy().reshape(-1, 1, 10, 1)
  path = weights_made_up.write(name, tmp_path, arrays)
  refused(name, path, 'shapes differ', arrays[theirs].shape)


def test_one_value_is_not_broadcast(tmp_path):
  arrays, _ = weights_made_up.tensors('timm_xception')
  arrays['bn1.weight'] = arrays['bn1.weight'][:1]
  path = weights_made_up.write('timm_xception', tmp_path, arrays)
  refused('timm_xception', path, 'bn1.weight is (1,) and must be (4,)')


@pytest.mark.parametrize('value', (np.nan, np.inf))
def test_values_that_are_not_finite_are_refused(tmp_path, value):
  arrays, _ = weights_made_up.tensors('timm_xception')
  arrays['bn2.running_var'][3] = value
  path = weights_made_up.write('timm_xception', tmp_path, arrays)
  refused('timm_xception', path, 'bn2.running_var', 'not finite')


@pytest.mark.parametrize('kind', (np.bool_, np.int32, np.uint8, np.complex64))
def test_numbers_of_another_kind_are_refused(tmp_path, kind):
  arrays, _ = weights_made_up.tensors('timm_xception')
  arrays = {key: value.astype(kind) for key, value in arrays.items()}
  path = weights_made_up.write('timm_xception', tmp_path, arrays)
  refused('timm_xception', path, np.dtype(kind).name, 'not floating-point')


@pytest.mark.parametrize('kind', (np.float16, np.float64, jnp.bfloat16))
def test_floating_numbers_of_any_width_are_loaded(tmp_path, kind):
  arrays, ours_of = weights_made_up.tensors('timm_xception')
  arrays['bn1.weight'] = arrays['bn1.weight'].astype(kind)
  path = weights_made_up.write('timm_xception', tmp_path, arrays)
  loaded = weights_made_up.load('timm_xception', path)
  scale = loaded.variables['params']['backbone']['bn1']['scale']
  assert scale.dtype == np.float32
  np.testing.assert_array_equal(scale, arrays['bn1.weight'].astype(np.float32))


@pytest.mark.parametrize(
  ('kind', 'type_name'),
  (
    (h5py.string_dtype(), 'object'),
    (np.dtype('S7'), 'bytes56'),
    (np.dtype([('a', 'f4'), ('b', 'f4')]), 'void64'),
    # Each element holds three numbers, while the header's shape is right.
    (np.dtype(('f4', (3,))), 'float32 of shape (4, 3)'),
    (np.dtype('i8'), 'int64'),
  ),
  ids=('text', 'bytes', 'records', 'arrays', 'integers'),
)
def test_keras_files_of_other_types_are_refused(tmp_path, kind, type_name):
  path = weights_made_up.write('keras_xception', tmp_path)
  with h5py.File(path, 'r+') as file:
    group = file['block1_conv1_bn']
    name = group.attrs['weight_names'][0]
    assert group[name].shape == (4,)
    del group[name]
    group.create_dataset(name, (4,), kind)
  refused('keras_xception', path, 'block1_conv1_bn/0', type_name)


@pytest.mark.extra
@pytest.mark.parametrize('kind', ('bool', 'int8', 'complex64'))
def test_pytorch_numbers_of_another_kind_are_refused(tmp_path, kind):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  arrays, _ = weights_made_up.tensors('torch_deeplab')
  state = {key: torch.from_numpy(value) for key, value in arrays.items()}
  state['backbone.bn1.weight'] = state['backbone.bn1.weight'].to(
    getattr(torch, kind)
  )
  path = tmp_path / 'net.pth'
  torch.save(state, path)
  refused('torch_deeplab', path, 'backbone.bn1.weight', kind, 'not floating')


@pytest.mark.parametrize(
  'name', ('a.safetensors', 'a.h5', 'a.pth', 'a.pt', 'a.bin', 'a.index')
)
def test_files_longer_than_weights_are_refused_unread(
  tmp_path, monkeypatch, name
):
  """The files are sparse; the TensorFlow checkpoint has two parts."""
  names = [name]
  if name == 'a.index':
    names.append('a.data-00000-of-00001')
  for part in names:
    with (tmp_path / part).open('wb') as file:
      file.truncate((2 << 30) // len(names))
  monkeypatch.setattr(
    files, 'open', lambda *_: pytest.fail('it was read'), raising=False
  )
  path = tmp_path / name
  for read in (load.match, files.sha256):
    with pytest.raises(errors.InputError, match='has 2.0 GiB') as error:
      read(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_missing_and_unknown_files_are_refused(tmp_path):
  refused('timm_xception', tmp_path / 'none.safetensors', 'missing')
  refused('timm_xception', tmp_path, 'missing')
  other = tmp_path / 'weights.npz'
  np.savez(other, x=np.zeros(3))
  refused('timm_xception', other, "'.npz'", '.safetensors')
  broken = tmp_path / 'weights.h5'
  broken.write_bytes(b'<html>404</html>')
  refused('keras_xception', broken, 'damaged')
  with h5py.File(tmp_path / 'data.h5', 'w') as file:
    file['x'] = np.zeros(3)
  refused('keras_xception', tmp_path / 'data.h5', 'layer_names')


@pytest.mark.parametrize('share', (0.02, 0.5, 0.999))
def test_truncated_files_are_refused(name, tmp_path, share):
  path = weights_made_up.write(name, tmp_path)
  cut = path
  if name == 'tensorflow_deeplab':
    (cut,) = tmp_path.glob('*.data-*')
  data = cut.read_bytes()
  cut.write_bytes(data[: int(len(data) * share)])
  refused(name, path)


@pytest.mark.extra
@pytest.mark.parametrize('share', (0.02, 0.5, 0.999))
def test_truncated_pytorch_files_are_refused(tmp_path, share):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  arrays, _ = weights_made_up.tensors('torch_deeplab')
  path = tmp_path / 'net.pth'
  for new_format in (True, False):
    torch.save(
      {key: torch.from_numpy(v) for key, v in arrays.items()},
      path,
      _use_new_zipfile_serialization=new_format,
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused('torch_deeplab', path)


class _Code:
  """Touches a file when it is unpickled."""

  def __init__(self, sentinel):
    self._sentinel = sentinel

  def __reduce__(self):
    return (open, (str(self._sentinel), 'w'))


@pytest.mark.extra
def test_code_in_a_file_does_not_run(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  sentinel = tmp_path / 'it_ran'
  payload = {'aspp.branch1.0.weight': _Code(sentinel)}
  plain, zipped, old = (tmp_path / f'{n}.pth' for n in ('plain', 'zip', 'old'))
  plain.write_bytes(pickle.dumps(payload))
  torch.save(payload, zipped)
  torch.save(payload, old, _use_new_zipfile_serialization=False)
  for path in (plain, zipped, old):
    refused('torch_deeplab', path, 'code')
    assert not sentinel.exists()
  # The code does run where pickle loads it.
  pickle.loads(plain.read_bytes())
  assert sentinel.exists()


@pytest.mark.extra
def test_tensors_that_claim_gigabytes_are_refused(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  path = tmp_path / 'net.pth'
  # A stride of 0 turns one value into 400 million.
  torch.save({'aspp.branch1.0.weight': torch.zeros(1).expand(3 << 27)}, path)
  assert path.stat().st_size < 10_000
  refused('torch_deeplab', path, 'claims more than 1 GiB')


@pytest.mark.extra
def test_a_training_checkpoint_is_refused(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  path = tmp_path / 'net.pth'
  torch.save({'epoch': 3, 'state_dict': {'a': torch.zeros(3)}}, path)
  refused('torch_deeplab', path, 'epoch', 'state_dict')


def test_a_format_without_its_package_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  path = tmp_path / 'net.pth'
  path.write_bytes(b'x')
  refused('torch_deeplab', path, 'mtnet_jax[interop]')
