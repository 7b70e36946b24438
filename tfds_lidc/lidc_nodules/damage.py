"""Checks whether a dataset is built, and whether its files are sound."""

from collections.abc import Callable
import math
import os
import pathlib
import re
import shlex
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core.utils import file_utils

from tfds_lidc import errors
from tfds_lidc.lidc_nodules import file_checks
from tfds_lidc.lidc_nodules import staging

_ARRAY_RECORD = file_adapters.FileFormat.ARRAY_RECORD
# Far more than all slices of LIDC-IDRI would need.
_MAX_RECORDS = 10_000_000
_MAX_SHARDS = 10_000
# DATASET/CONFIG or DATASET/CONFIG:VERSION. TFDS would also accept arguments of
# the builder after another slash.
_NAME = re.compile(r'(\w+)/([\w+.-]+)(:[\d.*]+)?')
_BY_ITS_VERSION = 'python -m tfds_lidc.build, in the version that built it'


class DamagedError(errors.InputError):
  """A file of a dataset is truncated, changed, or unreadable."""

  def __init__(self, message: str):
    super().__init__(message)
    self._message = message

  def __str__(self) -> str:
    # TFDS prepends its own words to the arguments of any exception.
    return self._message


def has_files(builder: tfds.core.DatasetBuilder) -> bool:
  """Whether the files exist by which TFDS recognises a dataset."""
  files = ('dataset_info.json', 'features.json')
  return all((builder.data_path / name).exists() for name in files)


def damaged(
  builder: tfds.core.DatasetBuilder, error: Exception
) -> DamagedError:
  """Returns the error of a dataset whose files cannot be read."""
  return _damaged_at(
    builder.data_path,
    error,
    f'{build_command(builder)}{_source(builder)} --overwrite',
  )


def _damaged_at(
  where: str | os.PathLike[str], error: BaseException, command: str
) -> DamagedError:
  # Messages of json, protobuf and TFDS may quote a whole file.
  reason = errors.one_line(error.__cause__ or error)[:200]
  return DamagedError(
    f'{where} is damaged ({reason or type(error).__name__}): build it again '
    f'with `{command}`'
  )


def not_built(builder: tfds.core.DatasetBuilder) -> errors.InputError:
  """Returns the error of a dataset that is not built."""
  source = _source(builder)
  return errors.InputError(
    f'{builder.name}/{builder.builder_config.name} is not built in '
    f'{builder.data_dir_root}: build it, once, with '
    f'`{build_command(builder)}{source}`'
    + (source and ', where DIR has the DICOM files of LIDC-IDRI')
  )


def build_command(builder: tfds.core.DatasetBuilder) -> str:
  """Returns the command that builds a dataset, quoted for a shell."""
  config, changed, _ = builder.builder_config.name.partition('-')
  flags = [f'--config={config}', f'--data_dir={builder.data_dir_root}']
  if changed:
    flags.insert(1, '--policy=...')
  return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])


def _source(builder: tfds.core.DatasetBuilder) -> str:
  return '' if builder.builder_config.simulated else ' --lidc_dir=DIR'


def builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  """Calls `tfds.builder`, also for a config that this version does not know.

  Args:
    name: DATASET/CONFIG or DATASET/CONFIG:VERSION.
    data_dir: folder of all datasets; None leaves the choice to TFDS.

  Returns:
    The builder.

  Raises:
    DamagedError: the files of such a config cannot, or must not, be read.
    ValueError: there is no such config, or the name has another form.
    tfds.core.DatasetNotFoundError: there is no such dataset.
  """
  parts = _NAME.fullmatch(name)
  if not parts:
    raise ValueError(f'{name[:80]!r} is no name of a dataset')
  dataset, config, version = parts.groups()
  # TFDS reads all of a config that this version does not know from its files.
  staging.mend(data_dir, name.partition('/')[0])
  if version or config not in tfds.builder_cls(dataset).builder_configs:
    for folder in _folders(data_dir, dataset, config):
      try:
        file_checks.check(folder)
      except Exception as e:
        raise _damaged_at(folder, e, _BY_ITS_VERSION) from e
  try:
    return tfds.builder(name, data_dir=data_dir)
  except Exception as e:
    if isinstance(e.__cause__, DamagedError):
      raise e.__cause__ from e
    if isinstance(e, (errors.InputError, tfds.core.DatasetNotFoundError)):
      raise
    if type(e) is ValueError:  # no such config
      raise
    raise _damaged_at(name, e, _BY_ITS_VERSION) from e


def _folders(
  data_dir: str | None, dataset: str, config: str
) -> list[pathlib.Path]:
  """Returns the folders of all versions of a config.

  TFDS looks for the right version in them. They only matter for configs that
  this version does not know, as other builders check their folder themselves.
  """
  return [
    folder
    for place in file_utils.list_data_dirs(data_dir)
    if '://' not in os.fspath(place)
    for folder in pathlib.Path(place, dataset, config).glob('[!.]*/')
  ]


def check(builder: tfds.core.DatasetBuilder) -> None:
  """Checks the files that TFDS has read, and those that it would read later.

  Args:
    builder: the builder of a dataset that is built.

  Raises:
    Exception: a file is not as a build writes it; ValueError, OSError or any
      other type.
  """
  info = builder.info
  for name, fits in _FILES.items():
    content = file_checks.read_json(os.path.join(builder.data_path, name))
    if not isinstance(content, dict) or not fits(content, builder):
      raise ValueError(f'{name} is not of this dataset')
  if not info.splits:
    raise ValueError('dataset_info.json names no split')
  for split in info.splits.values():
    if not re.fullmatch(r'[\w.+-]{1,100}', split.name):
      raise ValueError(f'a split is called {split.name[:80]!r}')
    lengths = split.shard_lengths
    if not 0 < len(lengths) <= _MAX_SHARDS:
      raise ValueError(f'{len(lengths)} files of the split {split.name}')
    if min(lengths) < 0 or not 0 < sum(lengths) <= _MAX_RECORDS:
      raise ValueError(f'{sum(lengths)} records of the split {split.name}')
  dict(info.metadata.items())  # TFDS reads this file lazily


_FILES: dict[
  str, Callable[[dict[str, Any], tfds.core.DatasetBuilder], bool]
] = {
  'dataset_info.json': lambda content, builder: (
    content.get('name') == builder.name
    and content.get('configName') == builder.builder_config.name
  ),
  'features.json': lambda content, _: 'pythonClassName' in content,
  'metadata.json': lambda content, _: (
    type(content.get('simulated')) is bool
    and all(isinstance(i, str) for i in content.get('dropped', ()))
    and _is_spacing(content.get('spacing_mm'))
  ),
}


def _is_spacing(value: Any) -> bool:
  if value is None:
    return True
  return type(value) in (int, float) and value > 0 and math.isfinite(value)


def check_records(info: tfds.core.DatasetInfo) -> None:
  """Compares the numbers of records in dataset_info.json and in the files.

  Args:
    info: of a dataset that is built.

  Raises:
    Exception: the numbers differ, or a file is missing, unreadable or in
      another folder; ValueError, OSError or any other type.
  """
  if _ARRAY_RECORD not in info.available_file_formats():
    return
  from array_record.python import array_record_module

  for split in info.splits.values():
    # Not `split.filepaths`, which are TFRecord files if there are any.
    paths = split.filename_template.replace(
      filetype_suffix=_ARRAY_RECORD.value
    ).sharded_filepaths(split.num_shards)
    for path, length in zip(paths, split.shard_lengths, strict=True):
      # The template of the names may contain any folder.
      if pathlib.Path(path).parent != pathlib.Path(info.data_dir):
        raise ValueError(f'records of {split.name} are in another folder')
      file_checks.check_ordinary(path, os.stat(path))
      reader = array_record_module.ArrayRecordReader(os.fspath(path))
      try:
        found = reader.num_records()
      finally:
        reader.close()
      if found != length:
        raise ValueError(
          f'{os.path.basename(path)} has {found} records, but '
          f'dataset_info.json says {length}'
        )
