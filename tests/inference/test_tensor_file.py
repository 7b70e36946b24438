"""The exported code reads its own files, and refuses damaged or other ones."""

import json
import struct

import exported_models
import pytest

from mtnet_jax.inference import pytorch

torch = pytest.importorskip('torch', reason='needs the extra `interop`')

from mtnet_jax.inference.torch import mtnet  # noqa: E402
from mtnet_jax.inference.torch import tensor_file  # noqa: E402

pytestmark = pytest.mark.extra


@pytest.fixture(scope='module', name='content')
def _content(tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported')
  pytorch.write(exported_models.make('plain'), folder, name='out')
  return (folder / pytorch.WEIGHTS).read_bytes()


def _parts(content):
  (length,) = struct.unpack('<Q', content[:8])
  return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header, tensors):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + tensors


def test_safetensors_reads_what_is_saved(content, tmp_path):
  from safetensors import numpy as safetensors_numpy

  (tmp_path / 'in').write_bytes(content)
  model = mtnet.load(tmp_path / 'in')
  assert not model.training
  assert all(x.dtype == torch.float32 for x in model.state_dict().values())
  assert all(x.requires_grad for x in model.parameters())
  mtnet.save(model, tmp_path / 'out')
  settings, tensors = tensor_file.read_tensors(tmp_path / 'out')
  assert settings == model.settings
  expected = safetensors_numpy.load(content)
  found = safetensors_numpy.load((tmp_path / 'out').read_bytes())
  assert found.keys() == tensors.keys() == expected.keys()
  for name, value in expected.items():
    assert (found[name] == value).all() and found[name].dtype == value.dtype
    assert (tensors[name].numpy() == value).all()


def test_a_network_can_be_fine_tuned(content, tmp_path):
  (tmp_path / 'in').write_bytes(content)
  model = mtnet.load(tmp_path / 'in').train()
  hu, spacing_mm = map(torch.tensor, exported_models.inputs(2))
  networks = model.members[0]
  before = networks.coarse_net.cls_conv.weight.clone()
  optimizer = torch.optim.SGD(networks.coarse_net.parameters(), 0.1)
  networks.coarse_net(model.images(hu, spacing_mm)).square().mean().backward()
  optimizer.step()
  mtnet.save(model, tmp_path / 'out')
  after = mtnet.load(tmp_path / 'out').members[0].coarse_net
  assert not torch.equal(after.cls_conv.weight, before)
  assert torch.equal(after.cls_conv.weight, networks.coarse_net.cls_conv.weight)


def _changed(content, name, **entry):
  header, tensors = _parts(content)
  header[name] = {**header[name], **entry}
  return _joined(header, tensors)


def _settings(content, **changes):
  header, tensors = _parts(content)
  settings = json.loads(header['__metadata__']['mtnet'])
  for name, value in changes.items():
    group, _, key = name.rpartition('__')
    (settings[group] if group else settings)[key] = value
  header['__metadata__']['mtnet'] = json.dumps(settings)
  return _joined(header, tensors)


_NAME = 'members.0.coarse_net.cls_conv.bias'


@pytest.mark.parametrize(
  'damage',
  [
    lambda content: b'',
    lambda content: content[:7],
    lambda content: content[:-1],
    lambda content: struct.pack('<Q', 2**63) + content[8:],
    lambda content: _joined(b'{', b''),
    lambda content: _joined(b'3', b''),
    lambda content: _joined(b'[' * 100_000, b''),
    lambda content: _joined(b'{"__metadata__": {}}', b''),
    lambda content: _joined(_parts(content)[0], b''),
    lambda content: _changed(content, _NAME, dtype='I64'),
    lambda content: _changed(content, _NAME, shape=[10**12]),
    lambda content: _changed(content, _NAME, shape=[-1]),
    lambda content: _changed(content, _NAME, data_offsets=[-4, 0]),
    lambda content: _changed(content, _NAME, data_offsets=[0, 8]),
    lambda content: _changed(content, _NAME, data_offsets=[10**12, 10**12 + 4]),
    lambda content: content + b'0000',
    lambda content: _settings(content, coarse_mask='Soft'),
    lambda content: _settings(content, symmetries='false'),
    lambda content: _settings(content, window=[0, 0]),
    lambda content: _settings(content, window=[0]),
    lambda content: _settings(content, temperature=-1),
    lambda content: _settings(content, temperature='x'),
    lambda content: _settings(content, image_size=64.5),
    lambda content: _settings(content, spacing_mm=-1),
    lambda content: _settings(content, coarse_net__middle_blocks=-1),
    lambda content: _settings(content, coarse_net__skip_relu='no'),
    lambda content: _settings(content, coarse_net__input_std=[0]),
    lambda content: _settings(content, coarse_net__bn_epsilon=10**400),
    lambda content: _settings(content, coarse_net__dropout_rates=[2, 2, 2]),
    lambda content: _settings(content, class_net__pool_padding='keras'),
    lambda content: _settings(content, members=10**9),
    lambda content: _settings(content, members=2),
    lambda content: _settings(content, coarse_net=3),
    lambda content: _settings(content, coarse_net__middle_blocks=10**9),
    lambda content: _settings(content, coarse_net__exit_width=10**9),
    lambda content: _settings(content, class_net__tail_widths=[7]),
    lambda content: _settings(content, class_net__unknown=1),
  ],
)
def test_a_damaged_or_malicious_file_is_refused(content, tmp_path, damage):
  path = tmp_path / 'weights.safetensors'
  path.write_bytes(damage(content))
  with pytest.raises(ValueError) as error:
    mtnet.load(path)
  assert str(path) in str(error.value) and len(str(error.value)) < 1000


def test_another_shape_of_patches_is_refused(content, tmp_path):
  (tmp_path / 'in').write_bytes(content)
  model = mtnet.load(tmp_path / 'in')
  with pytest.raises(ValueError, match=r'\(64, 64\), not \(N, 64, 64\)'):
    model(torch.zeros(64, 64), torch.ones(1))


def test_a_wrapped_model_is_saved_without_its_wrapper(content, tmp_path):
  (tmp_path / 'in').write_bytes(content)
  model = mtnet.load(tmp_path / 'in')
  mtnet.save(torch.nn.DataParallel(model), tmp_path / 'out')
  mtnet.save(torch.compile(model), tmp_path / 'compiled')
  mtnet.save(model, tmp_path / 'plain')
  plain = (tmp_path / 'plain').read_bytes()
  assert (tmp_path / 'out').read_bytes() == plain
  assert (tmp_path / 'compiled').read_bytes() == plain
  with pytest.raises(ValueError, match='pass the whole model'):
    mtnet.save(model.members[0], tmp_path / 'part')
  model.members[0].coarse_net.cls_conv = torch.nn.Conv2d(4, 2, 1)
  with pytest.raises(ValueError, match='cls_conv'):
    mtnet.save(model, tmp_path / 'other')
  assert not (tmp_path / 'part').exists() and not (tmp_path / 'other').exists()


def test_half_precision_networks_get_exact_hu(content, tmp_path):
  (tmp_path / 'in').write_bytes(content)
  model = mtnet.load(tmp_path / 'in')
  hu, spacing_mm = map(torch.tensor, exported_models.inputs(2))
  expected = model.images(hu, spacing_mm)
  found = model.to(torch.bfloat16).images(hu, spacing_mm)
  assert found.dtype == torch.bfloat16
  # Images in [-1, 1] are rounded to bfloat16. HU in bfloat16 would be off by 4.
  torch.testing.assert_close(found.float(), expected, atol=2**-8, rtol=0)
  assert model.to(torch.float64).images(hu, spacing_mm).dtype == torch.float64
