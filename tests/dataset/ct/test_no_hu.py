"""Files whose values are not HU, or that are not slices, are reported."""

import dicom_files
import numpy as np
from pydicom import uid
import pytest

from tfds_lidc.ct import header as dicom_header
from tfds_lidc.ct import pixels as dicom_pixels


@pytest.mark.parametrize(
  ('tags', 'message'),
  (
    ({'RescaleType': 'OD'}, 'other than HU'),
    ({'RescaleType': 'Z_EFF'}, 'other than HU'),
    ({'BitsStored': 12, 'HighBit': 12}, '12 bits up to bit 12'),
    ({'BitsStored': 10, 'HighBit': 15}, '10 bits up to bit 15'),
  ),
)
def test_values_other_than_hu_are_a_fault(tmp_path, tags, message):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **tags)
  hu, fault = dicom_pixels.try_read_hu(path)
  assert hu is None and message in fault.reason


@pytest.mark.parametrize('kind', ('HU', 'US', None))
def test_values_without_a_known_rescale_type_are_hu(tmp_path, kind):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, RescaleType=kind)
  assert (dicom_files.read_hu(path) == -1024).all()


@pytest.mark.parametrize(
  ('tags', 'message'),
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
def test_reason_why_a_file_is_not_a_slice_is_in_words(tmp_path, tags, message):
  """The reason is not the name of a Python exception."""
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **tags)
  found, fault = dicom_header.read_header(path)
  assert found is None and message in fault.reason
  assert 'Error' not in fault.reason


@pytest.mark.parametrize('name', ('RescaleSlope', 'RescaleIntercept', 'Rows'))
def test_missing_attribute_is_named(tmp_path, name):
  raw = np.zeros((4, 4), np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, **{name: None})
  hu, fault = dicom_pixels.try_read_hu(path)
  assert hu is None and fault.reason == f'has no {name}'
