"""Malicious or damaged bundles are refused, and messages leak no other file."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy

import mtnet_jax
from mtnet_jax.inference import packing
from mtnet_jax.storage import bundle_files
from mtnet_jax.system import errors


def _resigned(bundle_dir, out, **contents):
  """Copies a bundle with other files, and enters them into its manifest."""
  shutil.copytree(bundle_dir, out)
  manifest = json.loads((out / 'manifest.json').read_text())
  for name, data in contents.items():
    name = name.replace('_json', '.json')
    (out / name).write_bytes(data)
    manifest['files'][name] = hashlib.sha256(data).hexdigest()
  (out / 'manifest.json').write_text(json.dumps(manifest))
  return out


@pytest.mark.parametrize(
  'manifest',
  [
    {'format': 1},
    {'format': 1, 'files': []},
    {'format': 1, 'files': {'../../etc/passwd': '0', '/etc/passwd': '0'}},
  ],
)
def test_an_incomplete_manifest_is_refused(packed, tmp_path, manifest):
  out = _resigned(packed, tmp_path / 'b')
  (out / 'manifest.json').write_text(json.dumps(manifest))
  with pytest.raises(errors.InputError):
    mtnet_jax.load(out)


@pytest.mark.parametrize(
  ('name', 'data'),
  [
    ('config_json', b'{"dataset": 1}'),
    ('config_json', b'[' * 100_000),
    ('metrics_json', b'{"diameter_only_model":1,"test":1}'),
  ],
)
def test_wrong_files_with_right_checksums_are_refused(
  packed, tmp_path, name, data
):
  with pytest.raises(errors.InputError):
    mtnet_jax.load(_resigned(packed, tmp_path / 'b', **{name: data}))


def test_a_pipe_in_a_bundle_does_not_block(packed, tmp_path):
  out = _resigned(packed, tmp_path / 'b')
  (out / 'README.md').unlink()
  os.mkfifo(out / 'README.md')
  with pytest.raises(errors.InputError, match='not a regular file'):
    mtnet_jax.load(out)


def test_a_link_in_a_bundle_shows_no_other_file(packed, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('a secret')
  out = _resigned(packed, tmp_path / 'b')
  (out / 'README.md').unlink()
  (out / 'README.md').symlink_to(secret)
  with pytest.raises(errors.InputError, match='damaged') as caught:
    mtnet_jax.load(out)
  assert 'a secret' not in str(caught.value)


def _change_manifest(out, **changes):
  path = out / 'manifest.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
  'name',
  [
    '\x1b[31mred',
    'a' * 65,
    '```\nimport os',
    {'a': 'dict'},
    '<b>',
    '../up',
    '',
    None,
  ],
)
def test_an_unsafe_name_is_refused(packed, tmp_path, name):
  out = _resigned(packed, tmp_path / 'b')
  _change_manifest(out, name=name)
  with pytest.raises(errors.InputError, match='not a model name') as caught:
    mtnet_jax.load(out)
  assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
  ('file', 'changes', 'message'),
  [
    ('config', {'variant': '\x1b[2Jx'}, 'variant'),
    ('config', {'variant': {'a': 1}}, 'variant must be a string'),
    ('config', {'seed': '<script>'}, 'seed must be a whole number'),
    ('metrics', {'versions': {'jax': 'x' * 5000}}, 'jax.*cannot be shown'),
    ('metrics', {'versions': {'\x1b[2J': '1'}}, 'cannot be shown'),
    # Keys that may hold paths or paragraphs, but not in this group.
    ('metrics', {'versions': {'data_dir': '\x1b[2J'}}, 'cannot be shown'),
    ('metrics', {'versions': {'note': 'a\n\n# b'}}, 'cannot be shown'),
    ('metrics', {'note': ['a list']}, 'note must be a string'),
    ('metrics', {'simulated': 'no'}, 'simulated must be true or false'),
    ('metrics', {'left_out': ['a\nb']}, 'left_out.*cannot be shown'),
    ('metrics', {'license': 'mit"] x'}, 'not a licence'),
    ('metrics', {'license': ['mit']}, 'not a licence'),
  ],
)
def test_texts_that_cannot_be_shown(packed, tmp_path, file, changes, message):
  tree = json.loads((packed / f'{file}.json').read_text())
  data = json.dumps({**tree, **changes}).encode()
  out = _resigned(packed, tmp_path / 'b', **{f'{file}_json': data})
  with pytest.raises(errors.InputError, match=message) as caught:
    mtnet_jax.load(out)
  assert len(str(caught.value)) < 400


@pytest.mark.parametrize('card', [b'# \x1b[2J', b'a' * (1 << 20) + b'bc'])
def test_a_long_or_unprintable_card_is_refused(packed, tmp_path, card):
  out = _resigned(packed, tmp_path / 'b')
  (out / 'README.md').write_bytes(card)
  files = json.loads((out / 'manifest.json').read_text())['files']
  files['README.md'] = hashlib.sha256(card).hexdigest()
  _change_manifest(out, files=files)
  with pytest.raises(errors.InputError, match='not a model card'):
    mtnet_jax.load(out)


def _with_weights(packed, out, change):
  """Copies a bundle with other weights and their checksum."""
  _resigned(packed, out)
  path = out / 'weights.safetensors'
  weights = change(safetensors.numpy.load_file(path))
  safetensors.numpy.save_file(weights, path)
  files = json.loads((out / 'manifest.json').read_text())['files']
  files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
  _change_manifest(out, files=files)
  return out


_KERNEL = 'fine/params/fine_layer/conv/kernel'  # (1, 1, 5, 4)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda x: np.full_like(x, np.nan), 'not finite'),
    (lambda x: np.full_like(x, np.inf), 'not finite'),
    (lambda x: x.astype(np.float64), 'holds no weights'),
    (lambda x: x.astype(np.int32), 'holds no weights'),
    (lambda x: np.zeros((1, 1, 5, 5), np.float32), 'do not belong together'),
  ],
)
def test_wrong_weights_are_refused(packed, tmp_path, change, message):
  out = _with_weights(
    packed, tmp_path / 'b', lambda w: {**w, _KERNEL: change(w[_KERNEL])}
  )
  with pytest.raises(errors.InputError, match=message):
    mtnet_jax.load(out)


def test_long_names_of_weights_do_not_fill_the_message(packed, tmp_path):
  more = {f'fine/params/{i}{"x" * 280}': np.zeros(1, 'f4') for i in range(9)}
  out = _with_weights(packed, tmp_path / 'b', lambda w: {**w, **more})
  with pytest.raises(errors.InputError, match='do not belong together') as e:
    mtnet_jax.load(out)
  assert len(str(e.value).replace(str(out), '')) < 500


@pytest.mark.parametrize('listed', [False, True])
def test_a_sparse_file_of_weights_is_not_read(
  packed, tmp_path, monkeypatch, listed
):
  """The file claims a terabyte, with or without a header that lists it."""
  out = _resigned(packed, tmp_path / 'b')
  path = out / 'weights.safetensors'
  if listed:
    header = json.dumps(
      {
        'x': {
          'dtype': 'F32',
          'shape': [1 << 19, 1 << 19],
          'data_offsets': [0, 1 << 40],
        }
      }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, 'little') + header)
    os.truncate(path, 8 + len(header) + (1 << 40))
  else:
    os.truncate(path, 1 << 40)
  verify = bundle_files.file_digest

  def digest(file):
    assert file != path
    return verify(file)

  monkeypatch.setattr(bundle_files, 'file_digest', digest)
  message = 'do not belong together' if listed else 'holds no weights'
  with pytest.raises(errors.InputError, match=message):
    mtnet_jax.load(out)


def test_texts_of_a_run_are_escaped_in_its_card(made_run_dir, tmp_path):
  run = shutil.copytree(made_run_dir, tmp_path / 'run <b>')
  for name, changes in (
    ('config.json', {'variant': '` <script>alert(1)</script>'}),
    (
      'metrics.json',
      {'versions': {'jax': '<img src=x>'}, 'note': '[a](b) <i>'},
    ),
  ):
    tree = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps({**tree, **changes}))
  packing.write(run, tmp_path / 'out')
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert "Config `' <script>alert(1)</script>`" in card  # in a code span
  assert 'jax &lt;img src=x&gt;' in card
  assert r'\[a\](b) &lt;i&gt;' in card
  assert '# MT-Net `run-b-`' in card
