"""Writes masks as a NIfTI label map; needs the extra `nifti` (nibabel)."""

from collections.abc import Mapping
import importlib.util
import os
import pathlib

import numpy as np

from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.storage import files
from mtnet_jax.system import errors

# DICOM's x and y increase to the left and back, NIfTI's to the right and front.
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def check(volume: ct_volume.Volume) -> None:
  """Checks before the prediction that a label map can be written.

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
      ' spaced, as NIfTI needs them: leave --nifti out, and use the DICOM'
      ' Segmentation.'
    )


def label_map(
  shape: tuple[int, int, int], nodules: Mapping[str, Mapping[int, np.ndarray]]
) -> np.ndarray:
  """Makes a label map of masks.

  Args:
    shape: of the volume.
    nodules: name -> slice -> (n, 2) row and column of the mask's pixels. The
      first nodule gets label 1, and the first of overlapping ones the voxel.

  Returns:
    (slices, rows, columns) uint16, 0 outside of all masks.
  """
  labels = np.zeros(shape, np.uint16)
  for number, pixels in reversed(list(enumerate(nodules.values(), 1))):
    for k, on_slice in pixels.items():
      labels[k][tuple(on_slice.T)] = number
  return labels


def write(
  path: str | os.PathLike[str],
  volume: ct_volume.Volume,
  nodules: Mapping[str, Mapping[int, np.ndarray]],
) -> None:
  """Writes a label map on the grid of the CT.

  Args:
    path: the .nii.gz file to write.
    volume: the CT.
    nodules: as for `label_map`.

  Raises:
    errors.InputError: it cannot be written.
  """
  import nibabel

  labels = label_map(volume.shape, nodules)
  # NIfTI's axes are column, row, slice.
  image = nibabel.Nifti1Image(labels.T, _RAS_FROM_LPS @ volume.affine)
  image.header.set_xyzt_units('mm')
  for set_form in (image.set_sform, image.set_qform):
    set_form(image.affine, code=1)  # scanner coordinates
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}')
  try:
    with files.writing(path):
      nibabel.save(image, temporary)
      files.write_bytes(path, temporary.read_bytes())
  finally:
    temporary.unlink(missing_ok=True)
