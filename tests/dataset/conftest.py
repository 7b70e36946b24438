"""CT of one patient, and a build of it; not to change."""

import dicom_files
import pytest

from tfds_lidc import build


@pytest.fixture(scope='module')
def synthetic_ct(tmp_path_factory):
  """The needed slices of LIDC-IDRI-0003; HU are row - column."""
  directory = tmp_path_factory.mktemp('ct')
  dicom_files.write_series(directory)
  return directory


@pytest.fixture(scope='module')
def built(tmp_path_factory, synthetic_ct):
  """The config `all`, from one patient."""
  return build.build(
    'all', lidc_dir=synthetic_ct, data_dir=tmp_path_factory.mktemp('data')
  )
