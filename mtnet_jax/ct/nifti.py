"""Writes masks as a NIfTI label map; needs the extra `nifti` (nibabel)."""

import importlib.util
import pathlib

import numpy as np

from mtnet_jax.storage import files
from mtnet_jax.system import errors

# DICOM's x and y grow to the left and back, NIfTI's to the right and front.
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def check(volume):
  """Fails before anything is computed, if a label map could not be written.

  Raises:
    errors.InputError: nibabel is missing, or slices are not evenly spaced.
  """
  if importlib.util.find_spec('nibabel') is None:
    raise errors.InputError(
      "--nifti needs nibabel: pip install 'mtnet_jax[nifti]'."
    )
  if not volume.is_regular:
    raise errors.InputError(
      f'--nifti: the slices of series {volume.series_uid} are not evenly'
      ' spaced, and NIfTI knows no other. The DICOM Segmentation does.'
    )


def label_map(shape, nodules):
  """Masks as numbers: (slices, rows, columns) uint16, 0 for none.

  Args:
    shape: of the volume.
    nodules: name -> (slice -> (n, 2) pixels); the first gets label 1. Where
      two overlap, the first keeps the voxel.
  """
  labels = np.zeros(shape, np.uint16)
  for number, pixels in reversed(list(enumerate(nodules.values(), 1))):
    for k, at in pixels.items():
      labels[k][tuple(at.T)] = number
  return labels


def write(path, volume, nodules):
  """Writes a label map on the grid of the CT.

  Args:
    path: of the file, .nii.gz.
    volume: `volume.Volume`.
    nodules: of `label_map`.

  Raises:
    errors.InputError: it cannot be written.
  """
  import nibabel

  labels = label_map(volume.shape, nodules)
  # NIfTI's axes are column, row, slice.
  image = nibabel.Nifti1Image(labels.T, _RAS_FROM_LPS @ volume.affine)
  image.header.set_xyzt_units('mm')
  for code in (image.set_sform, image.set_qform):
    code(image.affine, code=1)  # scanner coordinates
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}')
  try:
    with files.writing(path):
      nibabel.save(image, temporary)
      files.write_bytes(path, temporary.read_bytes())
  finally:
    temporary.unlink(missing_ok=True)
