"""HDF5 files that refer to other files, or claim too much, are refused."""

import h5py
import numpy as np
import pytest

from mtnet_jax.system import errors
from mtnet_jax.weights import files


def _write(path, fill):
  with h5py.File(path, 'w') as file:
    fill(file.create_group('layers/conv/vars'))
  return path


def _read(path):
  with files.open_weights(path) as file:
    return {name: file.read(name) for name in file.shapes}


def test_a_plain_file_is_read(tmp_path):
  path = _write(
    tmp_path / 'a.h5', lambda g: g.create_dataset('0', data=np.arange(3.0))
  )
  np.testing.assert_array_equal(_read(path)['conv/0'], [0, 1, 2])


def _external_link(group):
  group['0'] = h5py.ExternalLink('other.h5', '/layers/conv/vars/0')


def _soft_link(group):
  group['0'] = h5py.SoftLink('/layers')


def _external_storage(group):
  group.create_dataset('0', (3,), 'f8', external=[('/etc/hostname', 0, 24)])


def _virtual(group):
  layout = h5py.VirtualLayout((3,), 'f8')
  layout[:] = h5py.VirtualSource('other.h5', '/layers/conv/vars/0', (3,))
  group.create_virtual_dataset('0', layout)


def _huge(group):
  # The dataset takes no space on disk.
  group.create_dataset('0', (1 << 20, 1 << 20), 'f4', chunks=(64, 64))


@pytest.mark.parametrize(
  ('fill', 'message'),
  [
    (_external_link, 'link to another place'),
    (_soft_link, 'link to another place'),
    (_external_storage, 'lies in another file'),
    (_virtual, 'lies in another file'),
    (_huge, 'claims more than 1 GiB'),
  ],
)
def test_unsafe_datasets_are_refused(fill, message, tmp_path):
  _write(
    tmp_path / 'other.h5', lambda g: g.create_dataset('0', data=np.ones(3))
  )
  path = _write(tmp_path / 'a.h5', fill)
  with pytest.raises(errors.InputError, match=message):
    _read(path)


@pytest.mark.parametrize(
  ('attribute', 'value', 'message'),
  [
    ('_TIMEOUT_S', 1e-3, 'does not finish'),
    ('sys.executable', '/bin/false', 'the reader exits with 1'),
  ],
)
def test_a_separate_process_reads_first(
  attribute, value, message, tmp_path, monkeypatch
):
  """The HDF5 library may hang or crash on damaged files."""
  path = _write(
    tmp_path / 'a.h5', lambda g: g.create_dataset('0', data=np.ones(3))
  )
  monkeypatch.setattr(f'mtnet_jax.weights.hdf5.{attribute}', value)
  with pytest.raises(errors.InputError, match=message):
    _read(path)
