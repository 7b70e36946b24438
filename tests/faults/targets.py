"""Targets of the fuzzer: all readers of files that strangers may send.

Most corpora are written by the project's own writers. A target's `read` must
return, or raise the `InputError` of either package, or `Refused`.
"""

import functools
import importlib.util
import json
import pathlib
import re
import tempfile

from faults import bundle_targets
from faults import dicom_targets
from faults import mutations
from faults import target
from faults import volume_targets
from faults import weights_targets

# Tables, texts, runs and bundles.


def _points() -> list[target.Case]:
  return [
    {'points.csv': text.encode()}
    for text in (
      'x,y,z\n-35,-115,-300\n-33.5,-112,-297\n',
      'id;row;col;slice\na;8;8;1\nb.2;9;9;2\n',
      '\ufeffid\ti\tj\tk\tnote\nn-1\t8\t8\t1\thigh\n',
      *volume_targets.lists(),
    )
  ]


@functools.cache
def _volume():
  """An intact series, for points in it."""
  from mtnet_jax.ct import series

  folder = pathlib.Path(tempfile.mkdtemp(prefix='fuzz-'))
  dicom_targets.write_slices(folder, num=3)
  return series.find([folder], show_progress=False)


def _read_points(folder):
  from mtnet_jax.ct import places
  from mtnet_jax.ct import points

  read = points.read(folder / 'points.csv')
  for point in read.points:
    # The id becomes a file name, which must not lead to another folder.
    assert (folder / f'{point.point_id}.png').parent == folder
  volume = _volume()
  places.from_points(read.of_series(volume.series_uid), volume)


def _policies() -> list[target.Case]:
  return [
    {'policy': text.encode()}
    for text in (
      'readers=2-4,size=3-25,thickness=2.5,label=agreement,unlabelled=keep',
      'consensus=2/3,slices=all,split_by=nodule,spacing=0.7',
      'size=3-,spacing=native,label=median,consensus=1/2',
    )
  ]


def _damage_text(rng, case, other):
  def damaged(text, donor):
    if rng.random() < 0.3:
      return mutations.damage(rng, text, donor)
    items = [i.split(b'=') for i in text.split(b',')]
    item = rng.choice(items)
    item[rng.randrange(len(item))] = str(mutations.hostile(rng)).encode(
      'utf-8', 'replace'
    )
    return b','.join(b'='.join(i) for i in items)

  return {name: damaged(text, other[name]) for name, text in case.items()}


def _read_policy(folder):
  from tfds_lidc.nodules import overrides
  from tfds_lidc.nodules import selection

  text = (folder / 'policy').read_bytes().decode('utf-8', 'replace')
  policy = overrides.apply(selection.POLICIES['paper'], text)
  assert re.fullmatch(r'[\w.-]{1,200}', policy.name), policy.name


def _write_run(folder):
  import made_run

  made_run.write_results(folder)


def _runs() -> list[target.Case]:
  return [target.written(_write_run)]


def _read_run(folder):
  from mtnet_jax.evaluation import finished_run
  from mtnet_jax.models import nets

  run = finished_run.read(folder)
  nets.make_nets(run.config)


def _bundles() -> list[target.Case]:
  return [target.written(_write_bundle)]


def _write_bundle(folder):
  import made_run

  from mtnet_jax.inference import packing
  from mtnet_jax.storage import seen

  run = made_run.write(folder / 'run')
  rows = frozenset({('n', 'p', 'train'), ('m', 'q', 'validation')})
  seen.write(run / seen.FILE, seen.Seen(rows))
  packing.write(folder / 'run', folder / 'bundle')
  for path in sorted(folder.rglob('*'), reverse=True):
    if path.is_relative_to(folder / 'run'):
      path.rmdir() if path.is_dir() else path.unlink()


def _damage_bundle(rng, case, other):
  """Damages a file; mostly the manifest matches, as a stranger can sign too."""
  weights = 'bundle/weights.safetensors'
  if rng.random() < 0.25:
    found = dict(case)
    found[weights] = weights_targets.damage_safetensors(
      rng, case[weights], case[weights]
    )
  else:
    found = mutations.damage_case(rng, case, other)
  return bundle_targets.signed(found) if rng.random() < 0.85 else found


def _read_bundle(folder):
  import mtnet_jax

  mtnet_jax.load(folder / 'bundle')


# Flags.


def _flags() -> list[target.Case]:
  return [
    {'flags.json': json.dumps({'variant': variant, 'flags': {}}).encode()}
    for variant in ('mtnet', 'demo', 'test')
  ]


def _fields(config, path=''):
  """Yields (name, value) of every field of a config, with dots in names."""
  for key, value in config.items():
    name = f'{path}.{key}' if path else key
    if hasattr(value, 'items'):
      yield from _fields(value, name)
    else:
      yield name, value


def _damage_flags(rng, case, other):
  del other
  import project_configs

  content = json.loads(case['flags.json'])
  config = project_configs.CONFIGS.get_config(content['variant'])
  for name, value in rng.sample(list(_fields(config)), rng.choice((1, 1, 3))):
    hostile = mutations.hostile(rng)
    if rng.random() < 0.5 and isinstance(value, (int, float)):
      hostile = value * rng.choice((-1, 0, 0.5, 1.5, 1e9, 1e300))
    if isinstance(value, tuple) and rng.random() < 0.8:
      changed = list(value)
      changed[rng.randrange(len(changed))] = hostile
      hostile = changed
    content['flags'][name] = hostile
  return {'flags.json': json.dumps(content).encode()}


def _read_flags(folder):
  """Sets fields of a config like flags, and makes everything from it."""
  import project_configs

  from mtnet_jax.models import nets
  from mtnet_jax.training import check_config
  from mtnet_jax.training import options
  from mtnet_jax.training import stages

  content = json.loads((folder / 'flags.json').read_bytes())
  config = project_configs.CONFIGS.get_config(content['variant'])
  flags = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in content['flags'].items()
  }
  try:
    config.update_from_flattened_dict(flags)
  except (OverflowError, TypeError, ValueError) as error:
    # absl reports these errors of a flag in one line.
    raise target.Refused(str(error)[:200]) from error
  check_config.check_config(config)
  nets.make_nets(config)
  stages.make_stages(config)
  options.loss_hyperparams(config)


TARGETS = {
  'dicom': target.Target(
    38,
    dicom_targets.images,
    dicom_targets.damage_dicom,
    dicom_targets.read_image,
  ),
  'series': target.Target(
    1.5,
    dicom_targets.series,
    dicom_targets.damage_dicom,
    dicom_targets.read_series,
  ),
  'segmentation': target.Target(
    0.2,
    dicom_targets.series,
    dicom_targets.damage_dicom,
    dicom_targets.read_to_segmentation,
  ),
  'points': target.Target(25, _points, mutations.damage_case, _read_points),
  'volume': target.Target(
    4, volume_targets.files, mutations.damage_case, volume_targets.read_file
  ),
  'policy': target.Target(20, _policies, _damage_text, _read_policy),
  'run': target.Target(1, _runs, mutations.damage_case, _read_run),
  'bundle': target.Target(1.5, _bundles, _damage_bundle, _read_bundle),
  'manifest': target.Target(
    2, _bundles, bundle_targets.damage_manifest, bundle_targets.read
  ),
  'card': target.Target(
    2, _bundles, bundle_targets.damage_card, bundle_targets.read
  ),
  'header': target.Target(
    2, _bundles, bundle_targets.damage_header, bundle_targets.read
  ),
  'safetensors': target.Target(
    10,
    weights_targets.safetensors,
    weights_targets.of_weights(weights_targets.damage_safetensors),
    weights_targets.read_weights,
  ),
  'hdf5': target.Target(
    0.1,
    weights_targets.hdf5,
    weights_targets.of_weights(mutations.damage),
    weights_targets.read_weights,
  ),
  'flags': target.Target(2, _flags, _damage_flags, _read_flags),
  'tensorflow': target.Target(
    0.5,
    weights_targets.tensorflow,
    weights_targets.damage_tensorflow,
    weights_targets.read_weights,
  ),
  'pth': target.Target(
    2,
    weights_targets.pth,
    weights_targets.of_weights(weights_targets.damage_pth),
    weights_targets.read_weights,
  ),
  'index': target.Target(
    4,
    dicom_targets.indices,
    dicom_targets.damage_index,
    dicom_targets.read_index,
  ),
}
# Some readers need an extra.
for _name, _package in (
  ('pth', 'torch'),
  ('tensorflow', 'tensorflow'),
  ('volume', 'SimpleITK'),
):
  if not importlib.util.find_spec(_package):
    del TARGETS[_name]
