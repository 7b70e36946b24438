"""Series that are no stack of axial slices with square pixels are refused."""

import ct_files
import pytest

from mtnet_jax.ct import series
from mtnet_jax.system import errors


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(shape=(4, 96, 112))


@pytest.mark.parametrize(
  ('tags', 'says'),
  [
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, -1]}, 'not axial'),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0.98, 0.2]}, 'not axial'),
    ({'GantryDetectorTilt': -12}, 'tilted by 12 degrees'),
    ({'PixelSpacing': [0.7, 0.9]}, '0.7 x 0.9 mm'),
    ({'PixelSpacing': None}, 'no PixelSpacing'),
    ({'ImageOrientationPatient': None}, 'no ImageOrientationPatient'),
    ({'FrameOfReferenceUID': None}, 'no FrameOfReferenceUID'),
    ({'PixelSpacing': lambda k: [0.7 + 0.1 * (k > 2)] * 2}, 'straight above'),
    ({'FrameOfReferenceUID': lambda k: f'1.{2 + (k > 2)}'}, 'another Frame'),
  ],
)
def test_other_geometry_is_refused(tmp_path, hu, tags, says):
  ct_files.write(tmp_path, hu, **tags)
  with pytest.raises(errors.InputError, match=says) as error:
    series.find([tmp_path])
  assert str(tmp_path) in str(error.value)


def test_a_shear_is_refused(tmp_path, hu):
  # A tilted gantry, told by positions alone: 0.3 mm sideways a slice.
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


def test_one_slice_is_as_thick_as_it_says(tmp_path, hu):
  paths = ct_files.write(tmp_path / 'a', hu[:1], SliceThickness=2.5)
  volume = series.find(paths)
  assert volume.slice_spacing_mm == 2.5 and volume.thickness_mm([0]) == [2.5]
  assert volume.is_regular and not volume.misses_slices
  ct_files.write(tmp_path / 'b', hu[:1], SliceThickness=None)
  with pytest.raises(errors.InputError, match='SliceThickness'):
    series.find([tmp_path / 'b'])


@pytest.mark.filterwarnings('ignore')  # of pydicom, of what is written here
@pytest.mark.parametrize(
  ('tags', 'says'),
  [
    ({'PixelSpacing': [0.7, float('nan')]}, 'no usable PixelSpacing'),
    ({'PixelSpacing': 0.7}, 'no usable PixelSpacing'),
    ({'PixelSpacing': [-0.7, -0.7]}, 'there are none such'),
    ({'ImageOrientationPatient': [1, 0, 0]}, 'no usable ImageOrientation'),
    ({'ImageOrientationPatient': [1, 0, 0, 1, 0, 0]}, 'right angles'),
    ({'ImageOrientationPatient': [0] * 6}, 'right angles'),
    ({'ImagePositionPatient': ['1e308', 0, 0]}, 'no usable ImagePosition'),
    ({'SliceThickness': 'inf'}, 'no usable SliceThickness'),
    ({'GantryDetectorTilt': 'nan'}, 'no usable GantryDetectorTilt'),
  ],
)
def test_numbers_that_are_none_are_refused(tmp_path, hu, tags, says):
  ct_files.write(tmp_path, hu[:1], **tags)
  with pytest.raises(errors.InputError, match=says):
    series.find([tmp_path])
