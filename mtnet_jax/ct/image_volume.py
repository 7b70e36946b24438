"""A CT volume in one file: NIfTI, MetaImage (as in LUNA16) or NRRD.

Needs the extra `volumes` (SimpleITK), which reorients the volume to the axes of
DICOM's slices (LPS), and masks back to the axes of the file. The file's values
are taken as HU.
"""

from collections.abc import Mapping
import importlib.util
import os
import pathlib

import numpy as np

from mtnet_jax.ct import geometry
from mtnet_jax.ct import image_probe
from mtnet_jax.ct import nifti
from mtnet_jax.ct import volume
from mtnet_jax.storage import files
from mtnet_jax.system import errors

_ENDINGS = ('.nii', '.nii.gz', '.mhd', '.mha', '.nrrd')
_INT16 = np.iinfo(np.int16)
# Limits beyond which a file is no CT of a patient, or fits in no memory.
_MAX_VOXELS = 2_000_000_000
_MAX_SPACING_MM = 100.0
_MAX_ORIGIN_MM = 1e5


class ImageVolume(volume.Volume):
  """The slices of a file, from the lowest z."""

  def __init__(self, path: str | os.PathLike[str]):
    """Reads a file.

    Args:
      path: the file.

    Raises:
      errors.InputError: it cannot be read, is not a volume, is not axial, or
        its pixels are not square; or SimpleITK is missing.
    """
    path = pathlib.Path(path)
    _check(path)
    if not image_probe.survives(path, _MAX_VOXELS):
      raise errors.InputError(_damaged(path, 'SimpleITK crashes on it'))
    itk = _itk()
    image = _read(itk, path)
    self.simulated = 'SIMULATED' in ' '.join([path.name, *_texts(image)])
    self._code = itk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
      image.GetDirection()
    )
    image = itk.DICOMOrient(image, 'LPS')
    columns, rows, slices = image.GetSize()
    across, down, up = image.GetSpacing()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    geometry.check_axes(path, direction, across=across, down=down)
    origin = np.array(image.GetOrigin())
    # Written so that NaN fails.
    if not (np.abs(origin) <= _MAX_ORIGIN_MM).all():
      raise errors.InputError(
        f'{path} has its origin at {origin.tolist()} mm, too far for a scanner:'
        ' export it again.'
      )
    affine = np.eye(4)
    affine[:3, :3] = direction * (across, down, up)
    affine[:2, 2] = affine[2, :2] = 0
    affine[:3, 3] = origin
    super().__init__(
      z_mm=origin[2] + up * np.arange(slices),
      side=(rows, columns),
      affine=affine,
      pixel_spacing_mm=across,
      slice_spacing_mm=up,
    )
    stem = path.name[: -len(_ending(path))]
    # LUNA16 names its files after the series UID.
    self.series_uid = stem if volume.UID.fullmatch(stem) else ''
    self._grid = image
    self._values = itk.GetArrayViewFromImage(image)

  def _names(self, k):
    return (k,)

  def _image(self, name):
    from tfds_lidc.ct import header

    values = np.asarray(self._values[name], np.float64)
    if not np.isfinite(values).all():
      return None, header.Fault('unreadable', 'holds NaN or infinity')
    hu = np.clip(np.rint(values), _INT16.min, _INT16.max)
    return hu.astype(np.int16), None

  def write_labels(
    self,
    path: str | os.PathLike[str],
    nodules: Mapping[str, Mapping[int, np.ndarray]],
  ) -> None:
    """Writes masks as a NIfTI label map on the grid of the file.

    Args:
      path: the NIfTI file to write.
      nodules: as for `nifti.label_map`.

    Raises:
      errors.InputError: it cannot be written.
    """
    itk = _itk()
    image = itk.GetImageFromArray(nifti.label_map(self.shape, nodules))
    image.CopyInformation(self._grid)
    path = pathlib.Path(path)
    with files.writing(path):
      try:
        itk.WriteImage(itk.DICOMOrient(image, self._code), str(path))
      except RuntimeError as error:
        raise OSError(None, 'SimpleITK failed') from error


def _ending(path):
  """The ending, such as '.nii.gz', in the path's own case; '' if unknown."""
  name = path.name.lower()
  fits = [ending for ending in _ENDINGS if name.endswith(ending)]
  return path.name[-len(max(fits, key=len)) :] if fits else ''


def _check(path):
  """Refuses what cannot be a volume, before SimpleITK is imported."""
  if not path.is_file():
    what = 'is a folder' if path.is_dir() else 'does not exist'
    raise errors.InputError(
      f'{path} {what}: give a file as --ct, or DICOM as --dicom.'
    )
  if not _ending(path):
    raise errors.InputError(
      f'{path} is none of {", ".join(_ENDINGS)}: give such a file as --ct, or'
      ' DICOM as --dicom.'
    )
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.InputError(
      "--ct needs SimpleITK: pip install 'mtnet_jax[volumes]'."
    )


def _itk():
  """SimpleITK, without its warnings on stderr."""
  import SimpleITK

  SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
  return SimpleITK


def _read(itk, path):
  """Reads the image, after a check that its header can be that of a CT."""
  reader = itk.ImageFileReader()
  reader.SetFileName(str(path))
  try:
    reader.ReadImageInformation()
  # SimpleITK raises nothing else.
  except RuntimeError as error:
    raise errors.InputError(_damaged(path, error)) from error
  size, spacing = reader.GetSize(), reader.GetSpacing()
  if len(size) == 4 and size[3] == 1:
    size, spacing = size[:3], spacing[:3]
    reader.SetExtractSize([*reader.GetSize()[:3], 0])
  if len(size) != 3 or reader.GetNumberOfComponents() != 1:
    raise errors.InputError(
      f'{path} has {len(size)} dimensions and {reader.GetNumberOfComponents()}'
      ' values per voxel, but a CT has 3 and 1: give a CT as --ct.'
    )
  if min(size) < 1 or np.prod(size, dtype=np.float64) > _MAX_VOXELS:
    raise errors.InputError(
      f'{path} claims {size} voxels, which no CT has: export it again.'
    )
  # Written so that NaN fails.
  if not all(0 < x <= _MAX_SPACING_MM for x in spacing):
    raise errors.InputError(
      f'{path} has voxels of {spacing} mm, which no CT has: export it again.'
    )
  try:
    return reader.Execute()
  except RuntimeError as error:
    raise errors.InputError(_damaged(path, error)) from error


def _texts(image):
  """The header's values that are text."""
  for key in image.GetMetaDataKeys():
    try:
      yield image.GetMetaData(key)
    except (TypeError, ValueError):
      continue


def _damaged(path, error):
  """The message about a file that cannot be read."""
  # SimpleITK's messages have many lines, and the last names the reason.
  last = str(error).strip().splitlines()[-1]
  return f'{path} cannot be read ({last.strip()[:160]}): export it again.'
