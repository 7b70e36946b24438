"""Masks as a DICOM Segmentation that opens over its CT.

One object holds all nodules of a series, each as a binary segment. It belongs
to the study of the CT and therefore names that study's patient, as the standard
demands: it is as confidential as the CT. `highdicom` and `pydicom` are imported
where they are needed, because the networks load without them.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import logging
import re
from typing import TYPE_CHECKING
import warnings

import numpy as np

import mtnet_jax
from mtnet_jax.ct import dicom_volume
from mtnet_jax.system import errors

if TYPE_CHECKING:
  import pydicom

# Type 1 attributes (required, with a value) that the Segmentation copies from
# the CT or refers to.
_NEEDED = (
  'StudyInstanceUID',
  'SeriesInstanceUID',
  'FrameOfReferenceUID',
  'SOPClassUID',
  'SOPInstanceUID',
  'SliceThickness',
)
# Attributes that must be the same on all slices.
_SHARED = ('StudyInstanceUID', 'FrameOfReferenceUID')
_SERIES_NUMBER = 9001  # larger than the numbers that scanners assign
# Type 2 attributes (required, may be empty). De-identification may drop them.
_TYPE_2 = (
  'PatientName',
  'PatientID',
  'PatientBirthDate',
  'PatientSex',
  'StudyDate',
  'StudyTime',
  'AccessionNumber',
  'StudyID',
  'ReferringPhysicianName',
)


def _missing_or_mixed(headers: Sequence['pydicom.Dataset']) -> str | None:
  """Why these headers do not suffice for a Segmentation; None if they do.

  Args:
    headers: of `dicom_volume.DicomVolume.headers`.

  Returns:
    The end of a sentence that begins with 'the CT'.
  """
  for name in _NEEDED:
    if any(header.get(name) in (None, '') for header in headers):
      return f'has no {name}'
  for name in _SHARED:
    if len({header[name].value for header in headers}) > 1:
      return f'has more than one {name}'
  return None


def encode(
  volume: dicom_volume.DicomVolume,
  nodules: Mapping[str, Mapping[int, np.ndarray]],
  *,
  model_name: str,
  simulated: bool,
) -> bytes:
  """Encodes masks as a DICOM Segmentation.

  Args:
    volume: the CT.
    nodules: name -> slice -> (n, 2) row and column of the mask's pixels, with
      at least one pixel in all.
    model_name: the model that made the masks.
    simulated: whether the CT is SIMULATED or the model was trained on SIMULATED
      CT; the series description says so.

  Returns:
    The content of the file.

  Raises:
    errors.InputError: the headers of the CT do not suffice for it.
  """
  slices = sorted(set().union(*nodules.values()))
  with _silence():
    try:
      return _encode(
        volume,
        nodules,
        slices,
        _headers(volume, slices),
        model_name=model_name,
        simulated=simulated,
      )
    except errors.InputError:
      raise
    # highdicom and pydicom may raise any exception if a header breaks the
    # standard, and its message may quote the header.
    except Exception as error:
      raise errors.InputError(
        f'the headers of series {volume.series_uid} lack an attribute that a'
        f' DICOM Segmentation needs, or it is invalid ({_tag_in(error)}).'
      ) from error


def _tag_in(error):
  """The attribute that an error names, else the error's type; no values."""
  from pydicom import datadict

  words = re.findall(r'[A-Z]\w+', str(error))
  tags = [word for word in words if datadict.tag_for_keyword(word)]
  return tags[0] if tags else type(error).__name__


def _encode(volume, nodules, slices, images, *, model_name, simulated):
  import highdicom
  from pydicom.filebase import DicomBytesIO

  segmentation = highdicom.seg.Segmentation(
    source_images=images,
    pixel_array=_presence(nodules, slices, volume.shape[1:]),
    segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
    segment_descriptions=[
      _describe(number, name, model_name)
      for number, name in enumerate(nodules, 1)
    ],
    series_instance_uid=highdicom.UID(),
    series_number=_SERIES_NUMBER,
    series_description='SIMULATED: MT-Net nodules'
    if simulated
    else 'MT-Net nodules',
    sop_instance_uid=highdicom.UID(),
    instance_number=1,
    manufacturer='mtnet_jax',
    manufacturer_model_name='MT-Net',
    software_versions=mtnet_jax.__version__,
    device_serial_number='none',
    # UTF-8 can encode any name, regardless of the CT's character set.
    specific_character_set='ISO_IR 192',
    content_label='NODULES',
    content_description='For research, no medical device',
  )
  _set_pixels(segmentation, nodules, volume)
  buffer = DicomBytesIO()
  segmentation.save_as(buffer, enforce_file_format=True)
  return buffer.getvalue()


def _headers(volume, slices):
  """The headers of the slices that the Segmentation refers to.

  Missing and invalid type 2 attributes are set to empty.
  """
  try:
    headers = volume.headers(slices)
  except errors.InputError as error:
    # The error names the path, which could name the patient.
    raise errors.InputError('a file of the CT is gone or damaged.') from error
  reason = _missing_or_mixed(headers)
  if reason:
    raise errors.InputError(f'the CT {reason}, which a Segmentation needs.')
  for header in headers:
    for name in _TYPE_2:
      value = header.get(name)
      if value is None or not _is_valid(name, value):
        setattr(header, name, '')
  return headers


def _is_valid(name, value):
  """Whether highdicom accepts the value of a type 2 attribute."""
  from pydicom import valuerep

  if name == 'PatientSex':
    return value in ('M', 'F', 'O', '')
  convert = {
    'PatientBirthDate': valuerep.DA,
    'StudyDate': valuerep.DA,
    'StudyTime': valuerep.TM,
  }.get(name, str)
  try:
    convert(value)
  except (TypeError, ValueError):
    return False
  return True


def _describe(number, name, model_name):
  """The description of a segment."""
  import highdicom
  from pydicom.sr.codedict import codes

  return highdicom.seg.SegmentDescription(
    segment_number=number,
    segment_label=name,
    # PS3.16 CID 7150 and 7159, as in TCIA's own Segmentations of LIDC-IDRI.
    segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
    segmented_property_type=codes.SCT.Nodule,
    anatomic_regions=[codes.SCT.Lung],
    algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
    algorithm_identification=highdicom.AlgorithmIdentificationSequence(
      name='MT-Net Fine Seg-net',
      family=codes.DCM.ArtificialIntelligence,
      version=mtnet_jax.__version__,
      source='mtnet_jax',
      parameters={'model': model_name[:60]},
    ),
    tracking_id=name,
    tracking_uid=highdicom.UID(),
  )


def _presence(nodules, slices, shape):
  """(planes, rows, columns) that show which segment is on which plane.

  highdicom accepts either planes of segment numbers, in which two nodules
  cannot share a pixel, or a stack of planes for every segment, which takes
  gigabytes for a hundred nodules. Therefore this array has one pixel per
  segment and plane. highdicom makes frames of it, and `_set_pixels` fills them.
  """
  planes = np.zeros((len(slices), shape[0] * shape[1]), np.uint16)
  for number, pixels in enumerate(nodules.values(), 1):
    planes[np.isin(slices, list(pixels)), number] = number
  return planes.reshape(-1, *shape)


def _set_pixels(segmentation, nodules, volume):
  """Fills the frames that highdicom made."""
  frames = segmentation.PerFrameFunctionalGroupsSequence
  rows, columns = volume.shape[1:]
  # One bit per pixel: bytes would take gigabytes for a thousand nodules.
  size = -(-len(frames) * rows * columns // 16) * 2  # PS3.5: an even length
  bits = np.zeros(size, np.uint8)
  pixels_of = list(nodules.values())
  covered = {}  # slice -> a list of the pixels of each of its segments
  for position, frame in enumerate(frames):
    number = 1
    if len(pixels_of) > 1:  # a single segment's number is not in the frames
      segment = frame.SegmentIdentificationSequence[0]
      number = segment.ReferencedSegmentNumber
    k = volume.slice_at(frame.PlanePositionSequence[0].ImagePositionPatient[2])
    pixels = pixels_of[number - 1][k]
    at = (position * rows + pixels[:, 0].astype(np.int64)) * columns
    at += pixels[:, 1]
    np.bitwise_or.at(bits, at >> 3, (1 << (at & 7)).astype(np.uint8))
    covered.setdefault(k, []).append(pixels)
  segmentation.PixelData = bits.tobytes()
  overlap = any(
    len(np.unique(np.concatenate(p), axis=0)) < sum(map(len, p))
    for p in covered.values()
  )
  segmentation.SegmentsOverlap = 'YES' if overlap else 'NO'


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Hides warnings, which quote headers such as the patient's name."""
  before = logging.root.manager.disable
  logging.disable(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(before)
