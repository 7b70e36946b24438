"""What reads files of strangers: a corpus of sound ones, and the reader.

The corpus is written by the project's own writers; a target's `read` is given
a folder with one case. It returns, or raises the `InputError` of either
package, or `Refused` where the reader returns what is wrong.
"""

from collections.abc import Callable
import functools
import importlib.util
import io
import json
import os
import pathlib
import pickle
import random
import re
import tempfile
from typing import NamedTuple
import zipfile

from faults import dicom_mutations
from faults import mutations
import numpy as np

Case = dict[str, bytes]
_SIDE = 16


class Refused(Exception):  # noqa: N818
  """A reader returned what is wrong with the file."""


class Target(NamedTuple):
  """A reader, and what to give it.

  Attributes:
    share: of the inputs.
    corpus: writes sound cases.
    damage: (rng, case, another) -> a damaged case.
    read: reads a folder.
  """

  share: float
  corpus: Callable[[], list[Case]]
  damage: Callable[[random.Random, Case, Case], Case]
  read: Callable[[pathlib.Path], object]


def _written(write) -> Case:
  """What `write` writes into a folder."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write(folder)
    return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in sorted(folder.rglob('*'))
      if path.is_file()
    }


# DICOM.


def _slices(folder, syntax=None, count=1):
  import ct_files
  import pydicom

  rng = np.random.default_rng(0)
  hu = rng.integers(-1000, 400, (count, _SIDE, _SIDE)).astype(np.int16)
  for path in ct_files.write(folder, hu, PixelRepresentation=1):
    if syntax:
      dataset = pydicom.dcmread(path)
      if syntax.is_encapsulated:
        dataset.compress(syntax)
      else:
        dataset.file_meta.TransferSyntaxUID = syntax
      dataset.save_as(path)


def _jpeg(folder, kind, syntax):
  """A slice as Pillow compresses it: 8 bits, for the reader's sake."""
  from PIL import Image
  import pydicom

  _slices(folder)
  (path,) = folder.iterdir()
  dataset = pydicom.dcmread(path)
  stream = io.BytesIO()
  levels = np.arange(_SIDE * _SIDE, dtype=np.uint8).reshape(_SIDE, _SIDE)
  Image.fromarray(levels).save(
    stream, kind, **({'no_jp2': True} if kind == 'JPEG2000' else {})
  )
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.BitsAllocated = dataset.BitsStored = 8
  dataset.HighBit, dataset.PixelRepresentation = 7, 0
  dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
  dataset['PixelData'].VR = 'OB'
  dataset.save_as(path)


def _jpeg_lossless(folder):
  """A slice of 16 bits, as only GDCM, of the extra `jpeg`, reads it."""
  import jpeg_lossless
  import pydicom

  _slices(folder)
  (path,) = folder.iterdir()
  dataset = pydicom.dcmread(path)
  stream = jpeg_lossless.encode(dataset.pixel_array.view(np.uint16), 16)
  dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
  dataset.PixelData = pydicom.encaps.encapsulate([stream])
  dataset['PixelData'].VR = 'OB'
  dataset['PixelData'].is_undefined_length = True
  dataset.save_as(path)


def _images() -> list[Case]:
  """One of every kind; of JPEG Lossless with the extra `jpeg` only."""
  from pydicom import uid

  native = (
    None,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
  )
  cases = [_written(functools.partial(_slices, syntax=s)) for s in native]
  for kind, syntax in (
    ('JPEG', uid.JPEGBaseline8Bit),
    ('JPEG2000', uid.JPEG2000Lossless),
    ('JPEG2000', uid.JPEG2000),
  ):
    cases.append(_written(functools.partial(_jpeg, kind=kind, syntax=syntax)))
  if importlib.util.find_spec('gdcm'):
    cases.append(_written(_jpeg_lossless))
  return [{'1.dcm': data} for case in cases for data in case.values()]


def _damage_dicom(rng, case, other):
  case = dict(case)
  donors = list(other.values())
  for name in rng.sample(sorted(case), rng.choice((1, 1, len(case)))):
    case[name] = dicom_mutations.damage(rng, case[name], rng.choice(donors))
  return case


def _read_image(folder):
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
    raise Refused((fault or pixel_fault).reason)


def _series() -> list[Case]:
  from pydicom import uid

  syntaxes = (None, uid.ImplicitVRLittleEndian, uid.RLELossless)
  return [
    _written(functools.partial(_slices, syntax=syntax, count=3))
    for syntax in syntaxes
  ]


def _read_series(folder):
  from mtnet_jax.ct import places
  from mtnet_jax.ct import points
  from mtnet_jax.ct import series
  from mtnet_jax.ct import volume as ct_volume

  volume = series.find([folder], show_progress=False)
  assert np.isfinite(volume.affine).all() and np.isfinite(volume.z_mm).all()
  wanted = points.Points(
    ('row', 'col', 'slice'), [points.Point('a', (1, 8, 8))], []
  )
  found, faults = places.of_points(wanted, volume)
  for _, error in faults:
    raise Refused(str(error))
  try:
    volume.patch(found[0].voxel)
    volume.neighbour(found[0].voxel[0], 1)
  except ct_volume.SliceError as error:
    raise Refused(str(error)) from error
  return volume, found[0].voxel[0]


def _read_to_segmentation(folder):
  from mtnet_jax.ct import dicom_seg

  volume, k = _read_series(folder)
  dicom_seg.write(
    folder / 'segmentation',
    volume,
    {'a': {k: np.array([[3, 4], [3, 5]])}},
    model_name='fuzz',
    simulated=True,
  )


# Tables, text and runs.


def _points() -> list[Case]:
  return [
    {'points.csv': text.encode()}
    for text in (
      'x,y,z\n-35,-115,-300\n-33.5,-112,-297\n',
      'id;row;col;slice\na;8;8;1\nb.2;9;9;2\n',
      '\ufeffid\ti\tj\tk\tnote\nn-1\t8\t8\t1\thigh\n',
    )
  ]


@functools.cache
def _volume():
  """A sound series to ask for points of."""
  from mtnet_jax.ct import series

  folder = pathlib.Path(tempfile.mkdtemp(prefix='fuzz-'))
  _slices(folder, count=3)
  return series.find([folder], show_progress=False)


def _read_points(folder):
  from mtnet_jax.ct import places
  from mtnet_jax.ct import points

  read = points.read(folder / 'points.csv')
  for point in read.points:
    # The id becomes the name of a file.
    assert (folder / f'{point.point_id}.png').parent == folder
  places.of_points(read, _volume())


def _policies() -> list[Case]:
  return [
    {'policy': text.encode()}
    for text in (
      'readers=2-4,size=3-25,thickness=2.5,label=agreement,unlabelled=keep',
      'consensus=2/3,slices=all,split_by=nodule,spacing=0.7',
      'size=3-,spacing=native,label=median,consensus=1/2',
    )
  ]


def _damage_text(rng, case, other):
  def wounded(text, donor):
    if rng.random() < 0.3:
      return mutations.damage(rng, text, donor)
    items = [i.split(b'=') for i in text.split(b',')]
    item = rng.choice(items)
    item[rng.randrange(len(item))] = str(mutations.hostile(rng)).encode(
      'utf-8', 'replace'
    )
    return b','.join(b'='.join(i) for i in items)

  return {name: wounded(text, other[name]) for name, text in case.items()}


def _read_policy(folder):
  from tfds_lidc.nodules import overrides
  from tfds_lidc.nodules import selection

  text = (folder / 'policy').read_bytes().decode('utf-8', 'replace')
  policy = overrides.apply(selection.POLICIES['paper'], text)
  assert re.fullmatch(r'[\w.-]{1,200}', policy.name), policy.name


def _write_run(folder):
  import made_run

  made_run.write_results(folder)


def _runs() -> list[Case]:
  return [_written(_write_run)]


def _read_run(folder):
  from mtnet_jax.evaluation import finished_run
  from mtnet_jax.models import nets

  run = finished_run.read(folder)
  nets.make_nets(run.config)


def _bundles() -> list[Case]:
  return [_written(_write_bundle)]


def _write_bundle(folder):
  import made_run

  from mtnet_jax.inference import bundles

  made_run.write(folder / 'run')
  bundles.write(folder / 'run', folder / 'bundle')
  for path in sorted(folder.rglob('*'), reverse=True):
    if path.is_relative_to(folder / 'run'):
      path.rmdir() if path.is_dir() else path.unlink()


def _damage_bundle(rng, case, other):
  """Damage, mostly signed by a manifest that fits, as a stranger's would be."""
  import hashlib
  import json

  weights = 'bundle/weights.safetensors'
  if rng.random() < 0.25:
    found = dict(case)
    found[weights] = _damage_safetensors(rng, case[weights], case[weights])
  else:
    found = mutations.damage_case(rng, case, other)
  if rng.random() < 0.85:
    try:
      manifest = json.loads(found['bundle/manifest.json'])
      for name in manifest['files']:
        content = found[f'bundle/{name}']
        manifest['files'][name] = hashlib.sha256(content).hexdigest()
      found['bundle/manifest.json'] = json.dumps(manifest).encode()
    except (KeyError, TypeError, ValueError, RecursionError):
      pass
  return found


def _read_bundle(folder):
  import mtnet_jax

  mtnet_jax.load(folder / 'bundle')


# Files of weights.


def _arrays():
  rng = np.random.default_rng(0)
  return {
    'conv1.weight': rng.random((4, 3, 3, 3), np.float32),
    'bn1.weight': rng.random(4, np.float32),
    'bn1.num_batches_tracked': np.array(7),
  }


def _safetensors() -> list[Case]:
  from safetensors import numpy as safetensors_numpy

  return [{'weights.safetensors': safetensors_numpy.save(_arrays())}]


def _damage_safetensors(rng, data, other):
  """Mostly the header, with its length put right."""
  if rng.random() < 0.4:
    return mutations.damage(rng, data, other)
  size = int.from_bytes(data[:8], 'little')
  header = mutations.damage_json(rng, data[8 : 8 + size])
  if rng.random() < 0.2:
    size = rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1))
  else:
    size = len(header)
  return size.to_bytes(8, 'little') + header + data[8 + len(header) :]


def _pth() -> list[Case]:
  import torch

  state = {name: torch.tensor(value) for name, value in _arrays().items()}
  cases = []
  for zipped in (True, False):
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    cases.append({'weights.pth': stream.getvalue()})
  return cases


class _Code:
  """Runs when it is unpickled, if anything is."""

  def __reduce__(self):
    return os.system, ('touch /tmp/fuzz-has-run-code',)


def _damage_pth(rng, data, other):
  """Mostly the pickle inside of the archive."""
  if rng.random() < 0.3 or not zipfile.is_zipfile(io.BytesIO(data)):
    return mutations.damage(rng, data, other)
  out = io.BytesIO()
  method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
  with (
    zipfile.ZipFile(io.BytesIO(data)) as old,
    zipfile.ZipFile(out, 'w', method) as new,
  ):
    for item in old.infolist():
      content = old.read(item)
      if item.filename.endswith('data.pkl'):
        content = (
          pickle.dumps({'conv1.weight': _Code()})
          if rng.random() < 0.05
          else mutations.damage(rng, content, content)
        )
      new.writestr(item.filename, content)
  return out.getvalue()


def _hdf5() -> list[Case]:
  import h5py
  import weights_made_up

  arrays = {
    'block1_conv1/0': np.ones((3, 3, 3, 4), np.float32),
    'block1_conv1_bn/0': np.ones(4, np.float32),
    'skip1_conv/0': np.ones((1, 1, 4, 8), np.float32),
  }
  cases = [
    _written(lambda f: weights_made_up.write_keras_2(arrays, f / 'weights.h5')),
    _written(lambda f: weights_made_up.write_keras_3(arrays, f / 'weights.h5')),
  ]

  def compressed(folder):
    with h5py.File(folder / 'weights.h5', 'w') as file:
      group = file.create_group('layers/layer/vars')
      group.create_dataset(
        '0', data=np.ones((64, 64)), chunks=(8, 8), compression='gzip'
      )

  return [*cases, _written(compressed)]


def _tensorflow() -> list[Case]:
  import weights_made_up

  return [
    _written(
      lambda f: weights_made_up.write_tensorflow(_arrays(), f / 'model.ckpt')
    )
  ]


def _damage_tensorflow(rng, case, other):
  del other
  name = rng.choice(sorted(case))
  return {**case, name: mutations.damage(rng, case[name], case[name])}


def _of_weights(damage):
  def damaged(rng, case, other):
    ((name, data),) = case.items()
    return {name: damage(rng, data, other[name])}

  return damaged


def _read_weights(folder):
  from mtnet_jax.weights import files
  from mtnet_jax.weights import sources

  # Of TensorFlow's two files the index is what is named.
  path = max(folder.iterdir(), key=lambda path: path.suffix == '.index')
  with files.open_weights(path) as file:
    sources.recognise(tuple(file.shapes))
    for name, shape in file.shapes.items():
      value = file.read(name)
      assert value.shape == tuple(shape)
      np.array(value, np.float32)


# Flags.


def _flags() -> list[Case]:
  return [
    {'flags.json': json.dumps({'variant': variant, 'flags': {}}).encode()}
    for variant in ('mtnet', 'demo', 'test')
  ]


def _fields(config, path=''):
  """('seg_net.exit_width', 1024) of every field of a config."""
  for key, value in config.items():
    name = f'{path}.{key}' if path else key
    if hasattr(value, 'items'):
      yield from _fields(value, name)
    else:
      yield name, value


def _damage_flags(rng, case, other):
  del other
  import project_configs

  given = json.loads(case['flags.json'])
  config = project_configs.CONFIGS.get_config(given['variant'])
  for name, value in rng.sample(list(_fields(config)), rng.choice((1, 1, 3))):
    hostile = mutations.hostile(rng)
    if rng.random() < 0.5 and isinstance(value, (int, float)):
      hostile = value * rng.choice((-1, 0, 0.5, 1.5, 1e9, 1e300))
    if isinstance(value, tuple) and rng.random() < 0.8:
      changed = list(value)
      changed[rng.randrange(len(changed))] = hostile
      hostile = changed
    given['flags'][name] = hostile
  return {'flags.json': json.dumps(given).encode()}


def _read_flags(folder):
  """Every field of a config is a flag, of the type of its default."""
  import project_configs

  from mtnet_jax.models import nets
  from mtnet_jax.training import check_config
  from mtnet_jax.training import stages
  from mtnet_jax.training import step

  given = json.loads((folder / 'flags.json').read_bytes())
  config = project_configs.CONFIGS.get_config(given['variant'])
  flags = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in given['flags'].items()
  }
  try:
    config.update_from_flattened_dict(flags)
  except (OverflowError, TypeError, ValueError) as error:
    raise Refused(str(error)[:200]) from error  # as the flags do
  check_config.check_config(config)
  nets.make_nets(config)
  stages.make_stages(config)
  step.loss_hyperparams(config)


# What is remembered between runs.


def _memories() -> list[Case]:
  from tfds_lidc.ct import index

  def write(folder):
    _slices(folder / 'ct', count=2)
    index.load(folder / 'ct', cache_dir=folder, show_progress=False)
    (cache,) = folder.glob('index-*')
    cache.rename(folder / 'index.json.gz')

  return [_written(write)]


def _damage_memory(rng, case, other):
  import gzip

  name = 'index.json.gz'
  if rng.random() < 0.5:
    damaged = mutations.damage(rng, case[name], other[name])
  else:
    damaged = gzip.compress(
      mutations.damage_json(rng, gzip.decompress(case[name])), 1
    )
  return {**case, name: damaged}


def _read_memory(folder):
  from tfds_lidc.ct import index

  root = (folder / 'ct').resolve()
  # The reader's own name for it, whatever the folder is called today.
  cache = index._cache_file(root, folder)  # noqa: SLF001
  (folder / 'index.json.gz').rename(cache)
  index.load(root, cache_dir=folder, show_progress=False)


TARGETS = {
  'dicom': Target(38, _images, _damage_dicom, _read_image),
  'series': Target(1.5, _series, _damage_dicom, _read_series),
  'segmentation': Target(0.2, _series, _damage_dicom, _read_to_segmentation),
  'points': Target(25, _points, mutations.damage_case, _read_points),
  'policy': Target(20, _policies, _damage_text, _read_policy),
  'run': Target(1, _runs, mutations.damage_case, _read_run),
  'bundle': Target(1.5, _bundles, _damage_bundle, _read_bundle),
  'safetensors': Target(
    10, _safetensors, _of_weights(_damage_safetensors), _read_weights
  ),
  'hdf5': Target(0.1, _hdf5, _of_weights(mutations.damage), _read_weights),
  'flags': Target(2, _flags, _damage_flags, _read_flags),
  'tensorflow': Target(0.5, _tensorflow, _damage_tensorflow, _read_weights),
  'pth': Target(2, _pth, _of_weights(_damage_pth), _read_weights),
  'index': Target(4, _memories, _damage_memory, _read_memory),
}
# What reads some of them is an extra.
for _name, _package in (('pth', 'torch'), ('tensorflow', 'tensorflow')):
  if not importlib.util.find_spec(_package):
    del TARGETS[_name]
