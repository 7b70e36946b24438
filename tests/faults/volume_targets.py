"""Targets of the fuzzer: volumes in one file, and lists of points."""

import json

import ct_files
from faults import target
import numpy as np

_UID = ct_files.SERIES_UID


def files() -> list[target.Case]:
  """Returns a small CT in each format."""
  import SimpleITK

  rng = np.random.default_rng(0)
  hu = rng.integers(-1000, 400, (4, 16, 16)).astype(np.int16)
  image = SimpleITK.GetImageFromArray(hu)
  image.SetSpacing((0.7, 0.7, 2.0))
  image.SetOrigin((-40.0, -120.0, -300.0))

  def write(name, compressed=False):
    return target.written(
      lambda folder: SimpleITK.WriteImage(image, str(folder / name), compressed)
    )

  return [
    write('ct.mhd'),
    write('ct.mhd', True),
    write('ct.mha'),
    write('ct.nii'),
    write('ct.nii.gz'),
    write('ct.nrrd'),
  ]


def read_file(folder):
  from mtnet_jax.ct import image_volume
  from mtnet_jax.ct import volume as ct_volume
  from tfds_lidc.ct import metaimage

  # Damage may have removed a file.
  names = ('ct.mhd', 'ct.mha', 'ct.nii', 'ct.nii.gz', 'ct.nrrd')
  path = next(
    (folder / name for name in names if (folder / name).exists()),
    folder / names[0],
  )
  if path.suffix == '.mhd':
    _, fault = metaimage.read_grid(str(path))
    hu, pixel_fault = metaimage.try_read_hu(metaimage.slice_name(str(path), 1))
    assert (hu is None) == bool(pixel_fault) and (hu is None or not fault)
  volume = image_volume.ImageVolume(path)
  assert np.isfinite(volume.affine).all() and np.isfinite(volume.z_mm).all()
  try:
    volume.patch(volume.check_voxel((0, 0, 0)))
  except ct_volume.PlaceError as error:
    raise target.Refused(str(error)) from error


def lists() -> list[str]:
  """Returns lists of points in the formats of several tools."""
  points = [
    {'id': '1', 'label': 'F-1', 'position': [35.0, 115.0, -300.0]},
    {'id': '2', 'label': 'F-2', 'position': [33.5, 112.0, -297.0]},
  ]
  markups = [{'coordinateSystem': 'RAS', 'controlPoints': points}]
  boxes = [{'image': f'{_UID}.mhd', 'box': [[-35, -115, -300, 6, 6, 6]]}]
  corners = [
    {'image': 'ct.nii.gz', 'box': [[-36, -116, -301, -34, -114, -299]]}
  ]
  return [
    json.dumps({'markups': markups}),
    json.dumps({'training': boxes, 'validation': []}),
    json.dumps({'box_mode': 'xyzxyz', 'x': corners}),
    '# CoordinateSystem = 0\n# columns = id,x,y,z,label\na,35,115,-300,F-1\n',
    f'seriesuid,coordX,coordY,coordZ,diameter_mm\n{_UID},-35,-115,-300,6\n',
    'x (mm, RAS);y (mm, RAS);z (mm, RAS)\n35,5;115,0;-300,25\n',
  ]
