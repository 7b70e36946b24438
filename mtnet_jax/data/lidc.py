"""Nodules from TFDS into memory.

`tensorflow_datasets` and `tfds_lidc` are imported where they are needed, so
that the networks can be used without them.
"""

import re
import shlex
import zlib

import numpy as np

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.data import records as records_lib
from mtnet_jax.system import errors

SPLITS = ('train', 'validation', 'test')
BY_PATIENT = 'by patient'
# What decoding raises about records that a build would not write.
_DAMAGE = (
  ArithmeticError,
  LookupError,
  OSError,
  RuntimeError,
  TypeError,
  ValueError,
  zlib.error,
)
# Letters of a config's name, which is one of a folder.
_LONGEST = 255


def builder(name, data_dir):
  """The TFDS builder of `lidc_nodules/NAME` or `lidc_nodules/NAME?POLICY`.

  POLICY changes the selection as `python -m tfds_lidc.build --policy` does,
  such as `lidc_nodules/phantom?slices=all,split_by=nodule`. Of a policy with
  files (`?nodules=FILE`, `?folds=FILE`) see `lasting_name`, too.

  Raises:
    errors.InputError: no such dataset, config or policy.
  """
  import tensorflow_datasets as tfds

  from tfds_lidc import errors as lidc_errors
  from tfds_lidc.lidc_nodules import building  # Registers the dataset, too.
  from tfds_lidc.lidc_nodules import damage

  _check_name(name)
  if '?' in name:
    return _policy_builder(*_config_and_policy(name), data_dir)
  try:
    found = damage.builder(name, building.expand_data_dir(data_dir))
  except lidc_errors.InputError as error:
    raise errors.InputError(str(error)) from error
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    first_line = str(error).partition('\n')[0][:200]
    if re.search('-(nodules|folds)_', name):
      raise errors.InputError(
        f'{name} was not built in {data_dir or "the usual folder"}: give'
        ' --data_dir of the folder that has it, or its files as'
        f' {name.partition("-")[0]}?nodules=FILE,folds=FILE.'
      ) from error
    raise errors.InputError(
      f'dataset {name!r} is unknown ({first_line}):'
      ' take lidc_nodules/paper, /all or /phantom.'
    ) from error
  with _translated():
    return building.with_home(found)


def lasting_name(name):
  """The name of a dataset that opens it without any other file.

  `?nodules=FILE` names a file, which can change or be gone; the dataset that is
  built of it is called by what the file meant, such as
  `lidc_nodules/paper-nodules_1a2b3c4d5e`. Other names stay as they are.
  """
  if not re.search('[?,] *(nodules|folds)=', name):
    return name
  _check_name(name)
  from tfds_lidc.lidc_nodules import building

  with _translated():
    found = building.find_config(*_config_and_policy(name))
  return f'lidc_nodules/{found.name}'


def _check_name(name):
  config = name.partition('?')[0]
  if not config.startswith('lidc_nodules/') or len(config) > _LONGEST:
    raise errors.InputError(
      f'dataset {name[:80]!r} is not of this project: take lidc_nodules/paper,'
      ' /all or /phantom.'
    )


def _policy_builder(config, policy, data_dir):
  from tfds_lidc.lidc_nodules import building

  with _translated():
    return building.find(config, data_dir=data_dir, policy=policy)


def _translated():
  from tfds_lidc import errors as lidc_errors

  return errors.translated(lidc_errors.InputError)


def _config_and_policy(name):
  # The first slash: consensus=1/2 has another.
  config, _, policy = name.partition('/')[2].partition('?')
  return config, policy


def is_built(name, data_dir):
  """Whether the dataset is on this disk."""
  return _is_prepared(builder(name, data_dir))


def _is_prepared(source):
  with _translated():
    return source.is_prepared()


def is_simulated(name, data_dir):
  """Whether a dataset's attenuation is simulated, built or not."""
  return bool(builder(name, data_dir).info.metadata['simulated'])


def build_phantoms(name, data_dir):
  """Builds a dataset that needs no download.

  Raises:
    errors.InputError: it could not be written.
  """
  from tfds_lidc.lidc_nodules import building

  config, policy = _config_and_policy(name)
  with _translated():
    building.build(config, policy=policy, data_dir=data_dir)


def build_command(name, data_dir):
  """The command that builds a dataset from CT, quoted for a shell."""
  config, policy = _config_and_policy(name)
  config, changed, _ = config.partition('-')
  flags = [f'--config={config}']
  if policy or changed:
    flags.append(f'--policy={policy or "..."}')
  flags.append('--lidc_dir=DIR')
  if data_dir:
    flags.append(f'--data_dir={data_dir}')
  return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])


def built_splits(name, data_dir):
  """Names of the splits that were built.

  Raises:
    errors.InputError: the dataset is not built.
  """
  return list(_built(name, data_dir).info.splits)


def _built(name, data_dir):
  source = builder(name, data_dir)
  if not _is_prepared(source):
    raise errors.InputError(
      f'{name} is not in {source.data_dir}: build it with'
      f' `{build_command(name, data_dir)}`.'
    )
  return source


def load_split(name, split, *, data_dir='', limit=0, rotate_folds=0):
  """Reads one split into memory.

  Args:
    name: 'lidc_nodules/NAME'.
    split: a split that was built.
    data_dir: where TFDS keeps datasets; '' for its usual place.
    limit: the largest number of nodules; 0 for all.
    rotate_folds: by how many folds the splits are moved on, cyclically.

  Returns:
    `Nodules`.

  Raises:
    errors.InputError: the dataset is not built, or has no such split.
  """
  if rotate_folds:
    everything = nodules_lib.concatenate(
      [
        load_split(name, part, data_dir=data_dir)
        for part in built_splits(name, data_dir)
      ]
    )
    moved = np.isin(everything.info['fold'], folds(split, rotate_folds))
    return everything.take(moved).take(slice(0, limit or None))
  return _read(_built(name, data_dir), name, split, data_dir, limit)


def load_splits(dataset, data_dir=None):
  """Reads the splits of a config's dataset into memory, by name.

  Args:
    dataset: group of the config.
    data_dir: where TFDS keeps datasets; None for where the config says.
  """
  return {
    split: load_split(
      dataset.name,
      split,
      data_dir=dataset.data_dir if data_dir is None else data_dir,
      limit=dataset.limit,
      rotate_folds=dataset.rotate_folds,
    )
    for split in SPLITS
  }


def load_for_training(config, *, say=print):
  """The three splits of the config's dataset, built first if simulated.

  Args:
    config: of `choice.choose_dataset`.
    say: prints.

  Raises:
    errors.InputError: a split is missing, or has one class only.
  """
  dataset = config.dataset
  name, data_dir = dataset.name, dataset.data_dir
  if is_simulated(name, data_dir) and not is_built(name, data_dir):
    say(f'Building {name} (SIMULATED CT, once).')
    build_phantoms(name, data_dir)
  present = built_splits(name, data_dir)
  missing = [split for split in SPLITS if split not in present]
  if missing:
    raise errors.InputError(
      f'{name} as built has no {" and no ".join(missing)} split: the CT on this'
      ' disk is of too few patients. Get more and build again with'
      f' `{build_command(name, data_dir)} --overwrite`, or take'
      ' --config.dataset.name=lidc_nodules/phantom.'
    )
  splits = load_splits(dataset)
  for split in ('train', 'validation'):
    if set(splits[split].labelled().label) != {0, 1}:
      raise errors.InputError(
        f'the {split} split of {name} ({len(splits[split])} nodules) lacks'
        ' benign or malignant ones, so that nothing can be learned or chosen:'
        ' build more of it, or raise config.dataset.limit.'
      )
  return splits


def folds(split, rotate_folds=0):
  """The folds that make a split."""
  from tfds_lidc.nodules import selection

  return [
    (fold + rotate_folds) % selection.NUM_FOLDS
    for fold in selection.SPLITS[split]
  ]


def _read(source, name, split, data_dir, limit):
  if split not in source.info.splits:
    raise errors.InputError(
      f'{name} has no split {split!r}: take one of'
      f' {", ".join(source.info.splits)}.'
    )
  try:
    with _translated():
      records = source.as_data_source(split=split)
    rows = records.__getitems__(range(min(len(records), limit or len(records))))
    return records_lib.to_nodules(rows, source.info.metadata)
  except errors.InputError:
    raise
  except _DAMAGE as error:
    reason = errors.one_line(error)[:200] or type(error).__name__
    raise errors.InputError(
      f'{source.data_dir} is damaged ({reason}): build it again with'
      f' `{build_command(name, data_dir)} --overwrite`.'
    ) from error


def seen_by_fold(name, rotate_folds=0):
  """The nodules that a run of an earlier version saw, which kept no list.

  Its folds are those of LIDC-IDRI's nodules.csv: 0 to 2 train, 3 validates,
  unless the run has them rotated. Every nodule there is counts, also those that
  the run's dataset left out.

  Args:
    name: of the run's dataset.
    rotate_folds: `config.dataset.rotate_folds` of the run.

  Returns:
    A set of (nodule_id, patient_id, 'train' or 'validation').
  """
  from tfds_lidc.nodules import selection

  clusters = selection.clusters()
  if how_split(name) != BY_PATIENT:
    # Of most patients some nodule was trained on.
    return {(n.nodule_id, n.patient_id, 'train') for n in clusters}
  return {
    (n.nodule_id, n.patient_id, split)
    for split in ('train', 'validation')
    for n in clusters
    if n.fold in folds(split, rotate_folds)
  }


def base_and_changes(name):
  """'lidc_nodules/paper?slices=all' -> 'paper', 'slices=all'; '' for none."""
  base, *changes = re.split('[?-]', name.partition('/')[2], maxsplit=1)
  return base, ''.join(changes)


def how_split(name):
  """'by patient', or how else; continues the word 'split'."""
  split = split_of(name)
  own = ', in folds of its own' if split.startswith('folds') else ''
  if 'by_nodule' in split:
    return f'by nodule (a patient can be in several splits){own}'
  # What is in a file of folds is not known: it is not opened.
  return own[2:] if split == 'folds_' else f'{BY_PATIENT}{own}'


def split_of(name):
  """What a name says of folds; '' for the usual ones. Opens no file."""
  found = re.search(r'[?,-] *(split_by[=_]nodule|folds_\w+|folds=)', name)
  return found[1].replace('=', '_') if found else ''
