"""Maps the frames of a DICOM Segmentation to the slices of its CT."""

import numpy as np
import pydicom


def place(path, directory, shape):
  """Returns segment number -> mask of `shape`, read by pydicom alone.

  Checks that the position, orientation and spacing of every frame are those of
  its source slice.

  Args:
    path: file of the segmentation.
    directory: directory of the CT's files.
    shape: (slices, rows, columns) of the CT.
  """
  dataset = pydicom.dcmread(path)
  sources = {}
  for source in directory.glob('*.dcm'):
    header = pydicom.dcmread(source, stop_before_pixels=True)
    sources[header.SOPInstanceUID] = header
  z_mm = sorted(float(h.ImagePositionPatient[2]) for h in sources.values())
  found = {}
  frames = dataset.pixel_array.reshape(-1, *shape[1:])
  shared = dataset.SharedFunctionalGroupsSequence[0]
  for frame, groups in zip(
    frames, dataset.PerFrameFunctionalGroupsSequence, strict=True
  ):
    segment = groups.get('SegmentIdentificationSequence') or (
      shared.SegmentIdentificationSequence
    )
    (derivation,) = groups.DerivationImageSequence
    (image,) = derivation.SourceImageSequence
    source = sources[image.ReferencedSOPInstanceUID]
    position = groups.PlanePositionSequence[0].ImagePositionPatient
    assert position == source.ImagePositionPatient
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation == source.ImageOrientationPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == source.PixelSpacing
    mask = found.setdefault(
      segment[0].ReferencedSegmentNumber, np.zeros(shape, bool)
    )
    mask[z_mm.index(float(position[2]))] |= frame > 0
  return found
