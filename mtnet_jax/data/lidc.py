"""Reads nodules from TFDS into memory.

Functions import `tensorflow_datasets` and `tfds_lidc` when they are called, so
that the networks can be used without these packages. Arguments `name` and
`data_dir` are as in `builder`.
"""

from collections.abc import Callable
import contextlib
import re
import shlex
from typing import Any
import zlib

import ml_collections
import numpy as np

from mtnet_jax.data import dataset_names
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.data import records as records_lib
from mtnet_jax.system import errors

SPLITS = ('train', 'validation', 'test')
# What decoding raises for records that no build writes.
_DAMAGE = (
  ArithmeticError,
  LookupError,
  OSError,
  RuntimeError,
  TypeError,
  ValueError,
  zlib.error,
)
# Characters of a config's name, which is also the name of a folder.
_MAX_CHARACTERS = 255


def builder(name: str, data_dir: str) -> Any:
  """Returns the `tfds.core.DatasetBuilder` of a dataset.

  Args:
    name: `lidc_nodules/NAME` or `lidc_nodules/NAME?POLICY`. A policy changes
      the selection as `python -m tfds_lidc.build --policy` does, such as
      `lidc_nodules/phantom?slices=all,split_by=nodule`. For policies with files
      (`?nodules=FILE`, `?folds=FILE`), see also `lasting_name`.
    data_dir: where TFDS keeps datasets; '' for its default.

  Raises:
    errors.InputError: there is no such dataset, config or policy.
  """
  import tensorflow_datasets as tfds

  from tfds_lidc import errors as lidc_errors
  from tfds_lidc.lidc_nodules import building  # Registers the dataset, too.
  from tfds_lidc.lidc_nodules import damage

  _check_name(name)
  if '?' in name:
    config, policy = _config_and_policy(name)
    return _policy_builder(config, policy, data_dir)
  try:
    found = damage.builder(name, building.expand_data_dir(data_dir))
  except lidc_errors.InputError as error:
    raise errors.InputError(str(error)) from error
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    first_line = str(error).partition('\n')[0][:200]
    if re.search('-(nodules|folds)_', name):
      raise errors.InputError(
        f'{name} was not built in {data_dir or "the usual folder"}: set'
        ' --data_dir to the folder that has it, or name its files, as in'
        f' {name.partition("-")[0]}?nodules=FILE,folds=FILE.'
      ) from error
    raise errors.InputError(
      f'dataset {name!r} is unknown ({first_line}):'
      ' use lidc_nodules/paper, /all or /phantom.'
    ) from error
  with _translated():
    return building.with_home(found)


def lasting_name(name: str) -> str:
  """Returns a name that opens a built dataset without the files of its policy.

  The FILE of `?nodules=FILE` can change or disappear. The dataset built with it
  has a name with a hash of the file's content instead, such as
  `lidc_nodules/paper-nodules_1a2b3c4d5e`. Names without files are returned
  unchanged.

  Args:
    name: as in `builder`.

  Raises:
    errors.InputError: a file cannot be read, or there is no such dataset.
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
  if not config.startswith('lidc_nodules/') or len(config) > _MAX_CHARACTERS:
    raise errors.InputError(
      f'dataset {name[:80]!r} is unknown: use lidc_nodules/paper, /all or'
      ' /phantom.'
    )


def _policy_builder(config, policy, data_dir):
  from tfds_lidc.lidc_nodules import building

  with _translated():
    return building.find(config, data_dir=data_dir, policy=policy)


def _translated() -> contextlib.AbstractContextManager[None]:
  """Turns errors of `tfds_lidc` into `errors.InputError`."""
  from tfds_lidc import errors as lidc_errors

  return errors.translated(lidc_errors.InputError)


def _config_and_policy(name):
  # Only the first slash counts: a policy may contain consensus=1/2.
  config, _, policy = name.partition('/')[2].partition('?')
  return config, policy


def is_built(name: str, data_dir: str) -> bool:
  """Returns whether the dataset was built."""
  return _is_prepared(builder(name, data_dir))


def _is_prepared(source):
  with _translated():
    return source.is_prepared()


def is_simulated(name: str, data_dir: str) -> bool:
  """Returns whether the dataset's attenuation is simulated, built or not."""
  return bool(builder(name, data_dir).info.metadata['simulated'])


def build_phantoms(name: str, data_dir: str) -> None:
  """Builds a dataset of phantoms, which needs no CT.

  Raises:
    errors.InputError: it could not be written.
  """
  from tfds_lidc.lidc_nodules import building

  config, policy = _config_and_policy(name)
  with _translated():
    building.build(config, policy=policy, data_dir=data_dir)


def build_command(name: str, data_dir: str) -> str:
  """Returns the command that builds a dataset from CT, quoted for a shell."""
  config, policy = _config_and_policy(name)
  config, changed, _ = config.partition('-')
  flags = [f'--config={config}']
  if policy or changed:
    flags.append(f'--policy={policy or "..."}')
  flags.append('--lidc_dir=DIR')
  if data_dir:
    flags.append(f'--data_dir={data_dir}')
  return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])


def built_splits(name: str, data_dir: str) -> list[str]:
  """Returns the names of the splits that were built.

  Raises:
    errors.InputError: the dataset was not built.
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


def load_split(
  name: str,
  split: str,
  *,
  data_dir: str = '',
  limit: int = 0,
  rotate_folds: int = 0,
) -> nodules_lib.Nodules:
  """Reads one split into memory.

  Args:
    name: as in `builder`.
    split: a split that was built.
    data_dir: as in `builder`.
    limit: the largest number of nodules; 0 for all.
    rotate_folds: by how many folds the splits are shifted, cyclically.

  Raises:
    errors.InputError: the dataset was not built, has no such split, or is
      damaged.
  """
  if rotate_folds:
    all_nodules = nodules_lib.concatenate(
      [
        load_split(name, part, data_dir=data_dir)
        for part in built_splits(name, data_dir)
      ]
    )
    selected = np.isin(all_nodules.info['fold'], folds(split, rotate_folds))
    return all_nodules.take(selected).take(slice(0, limit or None))
  return _read(_built(name, data_dir), name, split, data_dir, limit)


def load_splits(
  dataset: ml_collections.ConfigDict, data_dir: str | None = None
) -> dict[str, nodules_lib.Nodules]:
  """Reads the splits of a config's dataset into memory, by name.

  Args:
    dataset: the config's group of that name.
    data_dir: as in `builder`; None for that of the config.
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


def load_for_training(
  config: ml_collections.ConfigDict, *, say: Callable[[str], object] = print
) -> dict[str, nodules_lib.Nodules]:
  """Reads the splits of the config's dataset; builds it first if simulated.

  Args:
    config: as returned by `choice.choose_dataset`.
    say: prints a line.

  Raises:
    errors.InputError: a split is missing, or has nodules of one class only.
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
      f'{name} was built without a {" and a ".join(missing)} split, because its'
      ' CT is of too few patients. Download more and build again with'
      f' `{build_command(name, data_dir)} --overwrite`, or use'
      ' --config.dataset.name=lidc_nodules/phantom.'
    )
  splits = load_splits(dataset)
  for split in ('train', 'validation'):
    if set(splits[split].labelled().label) != {0, 1}:
      raise errors.InputError(
        f'the {split} split of {name} ({len(splits[split])} nodules) needs both'
        ' benign and malignant nodules: build it from more patients, or raise'
        ' config.dataset.limit.'
      )
  return splits


def folds(split: str, rotate_folds: int = 0) -> list[int]:
  """Returns the folds of a split; arguments as in `load_split`."""
  from tfds_lidc.nodules import selection

  return [
    (fold + rotate_folds) % selection.NUM_FOLDS
    for fold in selection.SPLITS[split]
  ]


def _read(source, name, split, data_dir, limit):
  if split not in source.info.splits:
    raise errors.InputError(
      f'{name} has no split {split!r}: use one of'
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


def seen_by_fold(name: str, rotate_folds: int = 0) -> set[tuple[str, str, str]]:
  """Returns the nodules that a run without a seen.csv may have seen.

  These are all nodules of LIDC-IDRI in the folds that the run trained on or
  validated on, including nodules that its dataset left out. Earlier versions
  wrote no seen.csv.

  Args:
    name: name of the run's dataset.
    rotate_folds: `config.dataset.rotate_folds` of the run.

  Returns:
    A set of (nodule_id, patient_id, split), where the split is 'train' or
    'validation'.
  """
  from tfds_lidc.nodules import selection

  clusters = selection.clusters()
  if dataset_names.how_split(name) != dataset_names.BY_PATIENT:
    # Most patients have a nodule in the training split.
    return {(n.nodule_id, n.patient_id, 'train') for n in clusters}
  return {
    (n.nodule_id, n.patient_id, split)
    for split in ('train', 'validation')
    for n in clusters
    if n.fold in folds(split, rotate_folds)
  }
