"""Targets of the fuzzer: DICOM files, series, and the cached index of them."""

import functools
import importlib.util
import io

from faults import dicom_mutations
from faults import mutations
from faults import target
import numpy as np

SIDE = 16


# DICOM.


def write_slices(folder, syntax=None, num=1):
  """Writes a series of `num` noisy slices."""
  import ct_files
  import pydicom

  rng = np.random.default_rng(0)
  hu = rng.integers(-1000, 400, (num, SIDE, SIDE)).astype(np.int16)
  for path in ct_files.write(folder, hu, PixelRepresentation=1):
    if syntax:
      dataset = pydicom.dcmread(path)
      if syntax.is_encapsulated:
        dataset.compress(syntax)
      else:
        dataset.file_meta.TransferSyntaxUID = syntax
      dataset.save_as(path)


def write_jpeg(folder, kind, syntax):
  """Writes a slice of 8 bits, compressed by Pillow."""
  from PIL import Image
  import pydicom

  write_slices(folder)
  (path,) = folder.iterdir()
  dataset = pydicom.dcmread(path)
  stream = io.BytesIO()
  levels = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
  Image.fromarray(levels).save(
    stream, kind, **({'no_jp2': True} if kind == 'JPEG2000' else {})
  )
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.BitsAllocated = dataset.BitsStored = 8
  dataset.HighBit, dataset.PixelRepresentation = 7, 0
  dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
  dataset['PixelData'].VR = 'OB'
  dataset.save_as(path)


def write_jpeg_lossless(folder):
  """Writes a slice of 16 bits, which only GDCM of the extra `jpeg` can read."""
  import jpeg_lossless
  import pydicom

  write_slices(folder)
  (path,) = folder.iterdir()
  dataset = pydicom.dcmread(path)
  stream = jpeg_lossless.encode(dataset.pixel_array.view(np.uint16), 16)
  dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
  dataset.PixelData = pydicom.encaps.encapsulate([stream])
  dataset['PixelData'].VR = 'OB'
  dataset['PixelData'].is_undefined_length = True
  dataset.save_as(path)


def images() -> list[target.Case]:
  """Returns an image of each kind; JPEG Lossless only with the extra `jpeg`."""
  from pydicom import uid

  native = (
    None,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
  )
  cases = [
    target.written(functools.partial(write_slices, syntax=s)) for s in native
  ]
  for kind, syntax in (
    ('JPEG', uid.JPEGBaseline8Bit),
    ('JPEG2000', uid.JPEG2000Lossless),
    ('JPEG2000', uid.JPEG2000),
  ):
    cases.append(
      target.written(functools.partial(write_jpeg, kind=kind, syntax=syntax))
    )
  if importlib.util.find_spec('gdcm'):
    cases.append(target.written(write_jpeg_lossless))
  images = [data for case in cases for data in case.values()]
  # Files of old archives have no preamble, and some have no meta header. The
  # elements of the meta header start at byte 144, after their length.
  for data in images[:2]:
    length = int.from_bytes(data[140:144], 'little')
    images += [data[132:], data[144 + length :]]
  return [{'1.dcm': data} for data in images]


def damage_dicom(rng, case, other):
  case = dict(case)
  donors = list(other.values())
  for name in rng.sample(sorted(case), rng.choice((1, 1, len(case)))):
    case[name] = dicom_mutations.damage(rng, case[name], rng.choice(donors))
  return case


def read_image(folder):
  from tfds_lidc.ct import header as dicom_header
  from tfds_lidc.ct import pixels

  path = folder / '1.dcm'
  header, fault = dicom_header.read_header(path)
  hu, pixel_fault = pixels.try_read_hu(path)
  if hu is not None:
    assert hu.dtype == np.int16 and hu.ndim == 2
  if header and header.modality == 'CT':
    assert np.isfinite(header.z_mm)
  if fault or pixel_fault:
    raise target.Refused((fault or pixel_fault).reason)


def series() -> list[target.Case]:
  from pydicom import uid

  syntaxes = (None, uid.ImplicitVRLittleEndian, uid.RLELossless)
  return [
    target.written(functools.partial(write_slices, syntax=syntax, num=3))
    for syntax in syntaxes
  ]


def read_series(folder):
  from mtnet_jax.ct import places
  from mtnet_jax.ct import points
  from mtnet_jax.ct import series
  from mtnet_jax.ct import volume as ct_volume

  volume = series.find([folder], show_progress=False)
  assert np.isfinite(volume.affine).all() and np.isfinite(volume.z_mm).all()
  wanted = points.Points(
    ('row', 'col', 'slice'), [points.Point('a', (1, 8, 8))], []
  )
  found, faults = places.from_points(wanted, volume)
  for _, error in faults:
    raise target.Refused(str(error))
  try:
    volume.patch(found[0].voxel)
    volume.neighbour(found[0].voxel[0], 1)
  except ct_volume.SliceError as error:
    raise target.Refused(str(error)) from error
  return volume, found[0].voxel[0]


def read_to_segmentation(folder):
  from mtnet_jax.ct import dicom_seg

  volume, k = read_series(folder)
  dicom_seg.encode(
    volume,
    {'a': {k: np.array([[3, 4], [3, 5]])}},
    model_name='fuzz',
    simulated=True,
  )


# The cached index of a folder's headers.


def indices() -> list[target.Case]:
  from tfds_lidc.ct import index

  def write(folder):
    write_slices(folder / 'ct', num=2)
    index.load(folder / 'ct', cache_dir=folder, show_progress=False)
    (cache,) = folder.glob('index-*')
    cache.rename(folder / 'index.json.gz')

  return [target.written(write)]


def damage_index(rng, case, other):
  import gzip

  name = 'index.json.gz'
  if rng.random() < 0.5:
    damaged = mutations.damage(rng, case[name], other[name])
  else:
    damaged = gzip.compress(
      mutations.damage_json(rng, gzip.decompress(case[name])), 1
    )
  return {**case, name: damaged}


def read_index(folder):
  from tfds_lidc.ct import index

  root = (folder / 'ct').resolve()
  # The name of the cache depends on the folder's path, which differs here.
  cache = index._cache_file(root, folder)  # noqa: SLF001
  (folder / 'index.json.gz').rename(cache)
  index.load(root, cache_dir=folder, show_progress=False)
