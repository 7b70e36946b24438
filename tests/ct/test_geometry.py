"""Tests which series are accepted as stacks of axial slices."""

import ct_files
import numpy as np
import pytest

from mtnet_jax.ct import series
from mtnet_jax.system import errors


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(shape=(4, 96, 112))


@pytest.mark.parametrize(
  ('tags', 'message'),
  [
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, -1]}, 'not axial'),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0.98, 0.2]}, 'not axial'),
    ({'PixelSpacing': [0.7, 0.9]}, '0.7 x 0.9 mm'),
    ({'PixelSpacing': None}, 'no PixelSpacing'),
    ({'ImageOrientationPatient': None}, 'no ImageOrientationPatient'),
    ({'PixelSpacing': lambda k: [0.7 + 0.1 * (k > 2)] * 2}, 'straight above'),
    ({'FrameOfReferenceUID': lambda k: f'1.{2 + (k > 2)}'}, 'another Frame'),
  ],
)
def test_other_geometry_is_refused(tmp_path, hu, tags, message):
  ct_files.write(tmp_path, hu, **tags)
  with pytest.raises(errors.InputError, match=message) as error:
    series.find([tmp_path])
  assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
  'tags',
  (
    # The slices are orthogonal, regardless of the tilt in the header.
    {'GantryDetectorTilt': -12},
    {'GantryDetectorTilt': 13.5},
    # Only a Segmentation needs this attribute.
    {'FrameOfReferenceUID': None},
    # Slices and stack are as oblique as allowed: 0.4 mm in 450.
    {
      'ImageOrientationPatient': [1, 0, 0.0009, 0, 1, 0],
      'ImagePositionPatient': lambda k: [
        -40.5 - 0.0009 * 150 * k,
        -120.25,
        -300 + 150 * k,
      ],
    },
  ),
)
def test_allowed_geometry_is_accepted(tmp_path, hu, tags):
  ct_files.write(tmp_path, hu, **tags)
  assert series.find([tmp_path]).shape == hu.shape


def _stray(directory, hu, z_mm, **tags):
  """Writes another image of the series, with its own name and instance."""
  (path,) = ct_files.write(
    directory,
    hu,
    z_mm=[z_mm],
    SOPInstanceUID='1.2.77',
    InstanceNumber=0,
    **tags,
  )
  return path


@pytest.mark.parametrize(
  ('tags', 'side', 'z_mm'),
  (
    ({'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER']}, 112, -280.0),
    # Others lie between slices, at a slice's position, and above all slices.
    (
      {
        'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
        'ImageOrientationPatient': [1, 0, 0, 0, 0, -1],
      },
      64,
      -299.3,
    ),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, -1]}, 112, -298.5),
    ({'PixelSpacing': [2.0, 2.0]}, 112, -200.0),
    ({}, 64, -298.5),
  ),
)
def test_one_stray_image_among_forty_is_left_out(tmp_path, tags, side, z_mm):
  hu = ct_files.volume(shape=(40, 96, 112))
  ct_files.write(tmp_path / 'ct', hu)
  path = _stray(tmp_path / 'more', hu[:1, :, :side], z_mm, **tags)
  volume = series.find([tmp_path])
  assert volume.shape == hu.shape
  assert volume.left_out == [str(path)]
  np.testing.assert_array_equal(volume.z_mm, -300 + 1.5 * np.arange(40))
  # The slice at the stray image's position is read correctly.
  patch = volume.patch((1, 48, 56))
  np.testing.assert_array_equal(patch, hu[1, 16:80, 24:88])


def test_localizers_alone_are_refused(tmp_path, hu):
  """They are not left out, since no image would remain."""
  ct_files.write(
    tmp_path,
    hu,
    ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
    ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
  )
  with pytest.raises(errors.InputError, match='not axial'):
    series.find([tmp_path])


def test_a_shear_is_refused(tmp_path, hu):
  # The positions show a tilted gantry: 0.3 mm sideways per slice.
  ct_files.write(
    tmp_path,
    hu,
    ImagePositionPatient=lambda k: [-40.5, -120.25 + 0.3 * k, -300 + 1.5 * k],
  )
  with pytest.raises(errors.InputError, match='shifted by 0.6 mm'):
    series.find([tmp_path])


def test_other_sizes_are_refused(tmp_path, hu):
  ct_files.write(tmp_path / 'ct', hu)
  ct_files.write(tmp_path / 'scout', hu[:1, :, :64], z_mm=[-250])
  with pytest.raises(errors.InputError, match='another Columns'):
    series.find([tmp_path])


def test_two_passes_in_one_series_are_refused(tmp_path, hu):
  for n in range(2):
    ct_files.write(
      tmp_path / str(n),
      hu + n,
      SOPInstanceUID=lambda k, n=n: f'1.2.{n + 1}.{k + 1}',
    )
  with pytest.raises(errors.InputError, match='4 of 4 positions'):
    series.find([tmp_path])
  assert len(series.find([tmp_path / '0'])) == 4


def test_a_single_slice_has_the_thickness_of_its_header(tmp_path, hu):
  paths = ct_files.write(tmp_path / 'a', hu[:1], SliceThickness=2.5)
  volume = series.find(paths)
  assert volume.slice_spacing_mm == 2.5 and volume.thickness_mm([0]) == [2.5]
  assert volume.is_regular and not volume.lacks_slices
  ct_files.write(tmp_path / 'b', hu[:1], SliceThickness=None)
  with pytest.raises(errors.InputError, match='SliceThickness'):
    series.find([tmp_path / 'b'])


@pytest.mark.filterwarnings('ignore')  # pydicom warns when it writes these.
@pytest.mark.parametrize(
  ('tags', 'message'),
  [
    ({'PixelSpacing': [0.7, float('nan')]}, 'no usable PixelSpacing'),
    ({'PixelSpacing': 0.7}, 'no usable PixelSpacing'),
    ({'PixelSpacing': [-0.7, -0.7]}, 'which is impossible'),
    ({'ImageOrientationPatient': [1, 0, 0]}, 'no usable ImageOrientation'),
    ({'ImageOrientationPatient': [1, 0, 0, 1, 0, 0]}, 'right angles'),
    ({'ImageOrientationPatient': [0] * 6}, 'right angles'),
    ({'ImagePositionPatient': ['1e308', 0, 0]}, 'no usable ImagePosition'),
    ({'SliceThickness': 'inf'}, 'no usable SliceThickness'),
  ],
)
def test_invalid_numbers_are_refused(tmp_path, hu, tags, message):
  ct_files.write(tmp_path, hu[:1], **tags)
  with pytest.raises(errors.InputError, match=message):
    series.find([tmp_path])
