"""Tests the DICOM Segmentation, read back by pydicom and highdicom."""

import logging
import tracemalloc
import types

import ct_files
import dicom_files
import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
import pytest
import seg_frames

from mtnet_jax.ct import dicom_seg
from mtnet_jax.ct import series as ct_series
from mtnet_jax.system import errors

# A frame's number of pixels is no multiple of 8, so that its bits end within a
# byte.
SHAPE = (24, 95, 111)


def _pixels(mask):
  """The mask's pixels: slice -> (n, 2) row and column."""
  return {k: np.argwhere(plane) for k, plane in enumerate(mask) if plane.any()}


@pytest.fixture(scope='module')
def masks():
  """Two overlapping balls, and one far above them."""
  return {
    'a': ct_files.sphere(SHAPE, (5, 40, 50), 5.0),
    'b.2': ct_files.sphere(SHAPE, (7, 43, 52), 4.0),
    'c': ct_files.sphere(SHAPE, (19.5, 10, 100), 3.0),
  }


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('series')
  ct_files.write(directory, ct_files.volume(shape=SHAPE))
  return directory


def _write(directory, path, masks, **kwargs):
  path.write_bytes(
    dicom_seg.encode(
      ct_series.find([directory]),
      {name: _pixels(mask) for name, mask in masks.items()},
      **{'model_name': 'thresholder', 'simulated': False, **kwargs},
    )
  )
  return path


@pytest.fixture(scope='module')
def path(directory, masks, tmp_path_factory):
  return _write(directory, tmp_path_factory.mktemp('seg') / 'seg.dcm', masks)


def test_frames_are_the_masks_on_their_source_slices(path, directory, masks):
  found = seg_frames.place(path, directory, SHAPE)
  assert sorted(found) == [1, 2, 3]
  for number, mask in enumerate(masks.values(), 1):
    np.testing.assert_array_equal(found[number], mask)


def test_highdicom_reads_the_same_places_in_the_patient(path, masks, directory):
  segmentation = highdicom.seg.segread(path)
  read = segmentation.get_volume(combine_segments=False)
  ct = ct_series.find([directory])
  for number, mask in enumerate(masks.values()):
    voxels = np.argwhere(read.array[..., number])
    ours = [ct.to_mm(voxel) for voxel in np.argwhere(mask)]
    theirs = read.map_indices_to_reference(voxels)
    np.testing.assert_allclose(sorted(map(tuple, theirs)), sorted(ours))


def test_one_segment_alone(directory, masks, tmp_path):
  path = _write(directory, tmp_path / '1.dcm', {'only': masks['c']})
  found = seg_frames.place(path, directory, SHAPE)
  np.testing.assert_array_equal(found[1], masks['c'])
  assert highdicom.seg.segread(path).SegmentsOverlap == 'NO'


def test_segmentation_belongs_to_the_study_of_the_ct(path, directory):
  dataset = pydicom.dcmread(path)
  source = pydicom.dcmread(next(directory.iterdir()), stop_before_pixels=True)
  assert dataset.SOPClassUID == pydicom.uid.SegmentationStorage
  for name in (
    'StudyInstanceUID',
    'FrameOfReferenceUID',
    'PatientName',
    'PatientID',
    'PatientBirthDate',
    'PatientSex',
    'AccessionNumber',
    'StudyDate',
  ):
    assert dataset[name].value == source[name].value, name
  assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
  (series,) = dataset.ReferencedSeriesSequence
  assert series.SeriesInstanceUID == ct_files.SERIES_UID
  # The masks are on slices 2 to 8, 5 to 9 and 18 to 21; each image counts once.
  assert len(series.ReferencedInstanceSequence) == 8 + 4
  assert dataset.SegmentsOverlap == 'YES'
  assert (dataset.Rows, dataset.Columns) == SHAPE[1:]


def test_segments_are_described(path, masks):
  segmentation = highdicom.seg.segread(path)
  assert list(segmentation.segment_numbers) == [1, 2, 3]
  for number, name in enumerate(masks, 1):
    segment = segmentation.get_segment_description(number)
    assert segment.segment_label == segment.tracking_id == name
    assert segment.segmented_property_category == (
      codes.SCT.MorphologicallyAbnormalStructure
    )
    assert segment.segmented_property_type == codes.SCT.Nodule
    assert segment.anatomic_regions == [codes.SCT.Lung]
    (algorithm,) = segment.algorithm_identification
    assert segment.algorithm_type.value == 'AUTOMATIC'
    assert 'thresholder' in algorithm.AlgorithmParameters
  # The codes are in the standard's tables: PS3.16, CID 7150, 7159 and 7162.
  assert codes.SCT.Nodule in codes.cid7159
  assert codes.SCT.MorphologicallyAbnormalStructure in codes.cid7150
  assert codes.DCM.ArtificialIntelligence in codes.cid7162


@pytest.mark.parametrize('simulated', [True, False])
def test_series_description_says_simulated(
  directory, masks, tmp_path, simulated
):
  path = _write(directory, tmp_path / '1.dcm', masks, simulated=simulated)
  description = pydicom.dcmread(path).SeriesDescription
  assert ('SIMULATED' in description) is simulated


@pytest.mark.filterwarnings('ignore:(Invalid value for|The value length)')
@pytest.mark.parametrize(
  ('tags', 'name'),
  [
    ({'PatientName': 'Nocaret'}, 'Nocaret'),
    ({'PatientName': None, 'StudyTime': None, 'AccessionNumber': None}, ''),
    ({'PatientSex': 'female', 'PatientName': ''}, ''),
    ({'PatientBirthDate': 'secret', 'StudyTime': '99'}, None),
    ({'PatientBirthDate': '19319999'}, None),
    ({'StudyID': 'secret' * 9}, None),  # so long that pydicom warns
    ({'PatientBirthDate': '', 'StudyDate': '', 'PatientSex': ''}, None),
    ({'SpecificCharacterSet': 'ISO_IR 100', 'PatientName': 'Mü^A'}, 'Mü^A'),
    ({'SpecificCharacterSet': 'ISO_IR 192', 'PatientName': '山^A'}, '山^A'),
    (
      {
        'SpecificCharacterSet': ['', 'ISO 2022 IR 87'],
        'PatientName': 'Yamada^Tarou=山田^太郎',
      },
      'Yamada^Tarou=山田^太郎',
    ),
  ],
)
def test_real_world_patient_attributes_are_accepted(
  tmp_path, masks, tags, name, capfd, caplog
):
  caplog.set_level(logging.DEBUG)
  ct_files.write(tmp_path / 'ct', ct_files.volume(shape=SHAPE), **tags)
  caplog.clear()  # pydicom may warn when the CT is written.
  capfd.readouterr()
  path = _write(tmp_path / 'ct', tmp_path / 'seg.dcm', {'a': masks['a']})
  if name is not None:
    assert pydicom.dcmread(path).PatientName == name
  out, err = capfd.readouterr()
  assert out == err == caplog.text == ''
  assert not logging.root.manager.disable


@dicom_files.needs_real_series
def test_segmentation_of_the_real_ct(tmp_path):
  volume = ct_series.find([dicom_files.REAL_DIR])
  rng = np.random.default_rng(0)
  mask = np.zeros(volume.shape, bool)
  mask[60:66, 200:230, 180:200] = rng.random((6, 30, 20)) < 0.5
  data = dicom_seg.encode(
    volume, {'n': _pixels(mask)}, model_name='x', simulated=False
  )
  (tmp_path / 'seg.dcm').write_bytes(data)
  (directory,) = {p.parent for p in dicom_files.REAL_DIR.rglob('*.dcm')}
  found = seg_frames.place(tmp_path / 'seg.dcm', directory, volume.shape)
  np.testing.assert_array_equal(found[1], mask)


@pytest.mark.parametrize(
  ('tags', 'message'),
  (
    ({'StudyInstanceUID': None}, 'has no StudyInstanceUID'),
    ({'SliceThickness': None}, 'has no SliceThickness'),
    ({'FrameOfReferenceUID': None}, 'has no FrameOfReferenceUID'),
    ({'StudyInstanceUID': lambda k: f'1.2.{k}'}, 'more than one StudyInstance'),
    ({'SOPClassUID': lambda k: None if k == 5 else '1.2'}, 'no SOPClassUID'),
  ),
)
def test_insufficient_headers_are_named(tmp_path, masks, tags, message):
  ct_files.write(tmp_path / 'ct', ct_files.volume(shape=SHAPE), **tags)
  with pytest.raises(errors.InputError, match=message) as caught:
    _write(tmp_path / 'ct', tmp_path / 'seg.dcm', {'a': masks['a']})
  assert not any(s in str(caught.value) for s in ct_files.SECRETS.values())
  assert not (tmp_path / 'seg.dcm').exists()


def test_many_segments_take_one_bit_per_pixel_in_memory():
  frames, side = 64, 256
  item = types.SimpleNamespace
  segmentation = item(
    PerFrameFunctionalGroupsSequence=[
      item(
        SegmentIdentificationSequence=[item(ReferencedSegmentNumber=n + 1)],
        PlanePositionSequence=[item(ImagePositionPatient=(0, 0, 0))],
      )
      for n in range(frames)
    ]
  )
  masks = {str(n): {0: np.array([[n, 9]])} for n in range(frames)}
  volume = item(shape=(1, side, side), slice_at=lambda z: 0)
  tracemalloc.start()
  dicom_seg._set_pixels(segmentation, masks, volume)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # The bits and a copy of them take a quarter of a byte per pixel.
  assert peak < frames * side**2 / 2
  bits = np.frombuffer(segmentation.PixelData, np.uint8)
  found = np.flatnonzero(np.unpackbits(bits, bitorder='little'))
  assert list(found) == [(n * side + n) * side + 9 for n in range(frames)]
