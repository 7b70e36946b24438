"""CT of one patient and a dataset of it; tests must not change them."""

import dicom_files
import pytest

from tfds_lidc import build


@pytest.fixture(scope='module')
def synthetic_ct(tmp_path_factory):
  """Slices of LIDC-IDRI-0003 that a build needs; each HU is row - column."""
  directory = tmp_path_factory.mktemp('ct')
  dicom_files.write_series(directory)
  return directory


@pytest.fixture(scope='module')
def built(tmp_path_factory, synthetic_ct):
  """The config `all`, built from one patient."""
  return build.build(
    'all', lidc_dir=synthetic_ct, data_dir=tmp_path_factory.mktemp('data')
  )
