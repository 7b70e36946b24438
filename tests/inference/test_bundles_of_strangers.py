"""Bundles that somebody made: refused, and nothing of the reader is shown."""

import hashlib
import json
import os
import shutil

import pytest

import mtnet_jax
from mtnet_jax.system import errors


def _resigned(bundle_dir, out, **contents):
  """A copy with other files, under a manifest that fits them."""
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
def test_a_manifest_of_a_stranger_is_refused(packed, tmp_path, manifest):
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
def test_files_that_fit_the_manifest_and_nothing_else(
  packed, tmp_path, name, data
):
  with pytest.raises(errors.InputError):
    mtnet_jax.load(_resigned(packed, tmp_path / 'b', **{name: data}))


def test_a_pipe_in_a_bundle_does_not_block(packed, tmp_path):
  out = _resigned(packed, tmp_path / 'b')
  (out / 'README.md').unlink()
  os.mkfifo(out / 'README.md')
  with pytest.raises(errors.InputError, match='no ordinary file'):
    mtnet_jax.load(out)


def test_a_link_in_a_bundle_shows_no_other_file(packed, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('of somebody else')
  out = _resigned(packed, tmp_path / 'b')
  (out / 'README.md').unlink()
  (out / 'README.md').symlink_to(secret)
  with pytest.raises(errors.InputError, match='damaged') as caught:
    mtnet_jax.load(out)
  assert 'somebody' not in str(caught.value)
