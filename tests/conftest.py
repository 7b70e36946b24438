"""What several tests share."""

import pytest


@pytest.fixture(scope='session')
def phantom_data_dir(tmp_path_factory):
  """A TFDS folder that holds the whole phantom dataset."""
  from tfds_lidc import build

  data_dir = tmp_path_factory.mktemp('tensorflow_datasets')
  build.build('phantom', data_dir=data_dir)
  return data_dir
