"""Files whose values are no HU, and what is no slice, are said to be so."""

import dicom_files
import numpy as np
from pydicom import uid
import pytest

from tfds_lidc.ct import header as dicom_header
from tfds_lidc.ct import pixels as dicom_pixels


@pytest.mark.parametrize(
  ('tags', 'says'),
  (
    ({'RescaleType': 'OD'}, 'other than HU'),
    ({'RescaleType': 'Z_EFF'}, 'other than HU'),
    ({'BitsStored': 12, 'HighBit': 12}, '12 bits up to bit 12'),
    ({'BitsStored': 10, 'HighBit': 15}, '10 bits up to bit 15'),
  ),
)
def test_values_that_are_no_hu_are_no_image(tmp_path, tags, says):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **tags)
  hu, fault = dicom_pixels.try_read_hu(path)
  assert hu is None and says in fault.reason


@pytest.mark.parametrize('kind', ('HU', 'US', None))
def test_values_that_are_hu_by_default(tmp_path, kind):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, RescaleType=kind)
  assert (dicom_files.read_hu(path) == -1024).all()


@pytest.mark.parametrize(
  ('tags', 'says'),
  (
    ({'SOPClassUID': uid.EnhancedCTImageStorage}, 'all slices in one file'),
    (
      {
        'SOPClassUID': uid.LegacyConvertedEnhancedCTImageStorage,
        'ImagePositionPatient': None,
      },
      'all slices in one file',
    ),
    ({'ImagePositionPatient': None}, 'has no ImagePositionPatient'),
    ({'SeriesInstanceUID': None}, 'has no SeriesInstanceUID'),
  ),
)
def test_what_is_no_slice_is_said_in_words(tmp_path, tags, says):
  """And not by the name of an exception of Python."""
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **tags)
  found, fault = dicom_header.read_header(path)
  assert found is None and says in fault.reason
  assert 'Error' not in fault.reason


@pytest.mark.parametrize('name', ('RescaleSlope', 'RescaleIntercept', 'Rows'))
def test_an_image_without_what_it_needs_names_it(tmp_path, name):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **{name: None})
  hu, fault = dicom_pixels.try_read_hu(path)
  assert hu is None and fault.reason == f'has no {name}'
