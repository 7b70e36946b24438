"""Tests NIfTI label maps, read back by nibabel."""

import importlib.util

import ct_files
import numpy as np
import pytest

from mtnet_jax.ct import nifti
from mtnet_jax.ct import series
from mtnet_jax.system import errors

SHAPE = (8, 30, 40)


@pytest.fixture
def volume(tmp_path):
  ct_files.write(tmp_path / 'ct', ct_files.volume(shape=SHAPE))
  return series.find([tmp_path / 'ct'])


@pytest.mark.extra
def test_labels_are_on_the_grid_of_the_ct(tmp_path, volume):
  nibabel = pytest.importorskip('nibabel', reason='needs the extra nifti')
  nodules = {
    'a': {2: np.array([[10, 20], [10, 21]]), 3: np.array([[11, 20]])},
    'b': {2: np.array([[10, 21], [12, 25]])},
  }
  nifti.check(volume)
  nifti.write(tmp_path / 'x.nii.gz', volume, nodules)
  image = nibabel.load(tmp_path / 'x.nii.gz')
  assert nibabel.aff2axcodes(image.affine) == ('L', 'P', 'S')
  labels = np.asarray(image.dataobj)
  marked = {tuple(v): labels[tuple(v)] for v in np.argwhere(labels)}
  # The indices are (column, row, slice). The first nodule keeps a shared voxel.
  assert marked == {
    (20, 10, 2): 1,
    (21, 10, 2): 1,
    (20, 11, 3): 1,
    (25, 12, 2): 2,
  }
  # NIfTI's x and y have the opposite sign of DICOM's.
  x, y, z = volume.to_mm((3, 11, 20))
  np.testing.assert_allclose(
    image.affine @ (20, 11, 3, 1), (-x, -y, z, 1), rtol=1e-5
  )
  np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
  assert image.header.get_xyzt_units()[0] == 'mm'
  assert [p.name for p in tmp_path.iterdir() if p.suffix == '.gz'] == [
    'x.nii.gz'
  ]


def test_uneven_slices_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  ct_files.write(
    tmp_path, ct_files.volume(shape=(4, 30, 40)), z_mm=[0, 1.5, 3, 5]
  )
  with pytest.raises(errors.InputError, match='not evenly spaced'):
    nifti.check(series.find([tmp_path]))


def test_a_missing_nibabel_is_named(volume, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match=r'mtnet_jax\[nifti\]'):
    nifti.check(volume)
