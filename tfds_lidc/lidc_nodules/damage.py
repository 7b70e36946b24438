"""Whether a dataset is there, and what TFDS keeps beside it can be believed."""

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
# Of what the whole LIDC-IDRI has, in as many slices as there are, far above.
_MAX_RECORDS = 10_000_000
_MAX_SHARDS = 10_000
# DATASET/CONFIG or DATASET/CONFIG:VERSION; TFDS takes arguments of its builders
# after another slash, too.
_NAME = re.compile(r'(\w+)/([\w+.-]+)(:[\d.*]+)?')
_BY_ITS_VERSION = 'python -m tfds_lidc.build, in the version that built it'


class DamagedError(errors.InputError):
  """A file beside the records is cut, changed, or unreadable."""

  def __init__(self, message: str):
    super().__init__(message)
    self._message = message

  def __str__(self):
    # TFDS puts words of its own in front of the arguments of any exception.
    return self._message


def is_there(builder: tfds.core.DatasetBuilder) -> bool:
  """Whether the files are there by which TFDS knows a dataset."""
  files = ('dataset_info.json', 'features.json')
  return all((builder.data_path / name).exists() for name in files)


def found(builder: tfds.core.DatasetBuilder, error: Exception) -> DamagedError:
  """The error of a dataset whose files cannot be read."""
  return _damaged(
    builder.data_path,
    error,
    f'{build_command(builder)}{_source(builder)} --overwrite',
  )


def _damaged(
  where: os.PathLike | str, error: Exception, command: str
) -> DamagedError:
  # What json, protobuf and TFDS say of a file may have all of it.
  reason = errors.one_line(error.__cause__ or error)[:200]
  return DamagedError(
    f'{where} is damaged ({reason or type(error).__name__}): build it again '
    f'with `{command}`'
  )


def not_built(builder: tfds.core.DatasetBuilder) -> errors.InputError:
  """The error of a dataset that is not there."""
  source = _source(builder)
  return errors.InputError(
    f'{builder.name}/{builder.builder_config.name} is not built in '
    f'{builder.data_dir_root}: build it, once, with '
    f'`{build_command(builder)}{source}`'
    + (source and ', where DIR has the DICOM files of LIDC-IDRI')
  )


def build_command(builder: tfds.core.DatasetBuilder) -> str:
  """The command that builds a dataset, quoted for a shell."""
  config, changed, _ = builder.builder_config.name.partition('-')
  flags = [f'--config={config}', f'--data_dir={builder.data_dir_root}']
  if changed:
    flags.insert(1, '--policy=...')
  return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])


def _source(builder: tfds.core.DatasetBuilder) -> str:
  return '' if builder.builder_config.simulated else ' --lidc_dir=DIR'


def builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  """`tfds.builder`, also of a config that is not of this version.

  Raises:
    DamagedError: TFDS reads all of such a one from its files, and cannot, or
      must not.
    Exception: others of `tfds.builder`, where there is no such dataset.
  """
  parts = _NAME.fullmatch(name)
  if not parts:
    raise ValueError(f'{name[:80]!r} is no name of a dataset')
  dataset, config, version = parts.groups()
  # A config that this version does not know is found by its files only.
  staging.mend(data_dir, name.partition('/')[0])
  if version or config not in tfds.builder_cls(dataset).builder_configs:
    for folder in _folders(data_dir, dataset, config):
      try:
        file_checks.check(folder)
      except Exception as e:
        raise _damaged(folder, e, _BY_ITS_VERSION) from e
  try:
    return tfds.builder(name, data_dir=data_dir)
  except Exception as e:
    if isinstance(e.__cause__, DamagedError):
      raise e.__cause__ from e
    if isinstance(e, (errors.InputError, tfds.core.DatasetNotFoundError)):
      raise
    if type(e) is ValueError:  # no such config
      raise
    raise _damaged(name, e, _BY_ITS_VERSION) from e


def _folders(
  data_dir: str | None, dataset: str, config: str
) -> list[pathlib.Path]:
  """Those of all versions of a config, in which TFDS looks for the right one.

  The builders of configs that this version knows look themselves.
  """
  return [
    folder
    for place in file_utils.list_data_dirs(data_dir)
    if '://' not in os.fspath(place)
    for folder in pathlib.Path(place, dataset, config).glob('[!.]*/')
  ]


def check(builder: tfds.core.DatasetBuilder) -> None:
  """Checks what TFDS has read, and reads what it would read later.

  Args:
    builder: of a dataset that is there.

  Raises:
    ValueError, OSError or any other: something is not as a build writes it.
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
  dict(info.metadata.items())  # TFDS reads the file only when it is asked.


_FILES: dict[str, Callable[[dict, tfds.core.DatasetBuilder], bool]] = {
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
  """Compares the numbers of records with those of the files.

  Raises:
    ValueError, OSError or any other: they differ, there is no such file, or it
      lies elsewhere.
  """
  if _ARRAY_RECORD not in info.available_file_formats():
    return
  from array_record.python import array_record_module

  for split in info.splits.values():
    # Beside TFRecord files, `filepaths` are those.
    paths = split.filename_template.replace(
      filetype_suffix=_ARRAY_RECORD.value
    ).sharded_filepaths(split.num_shards)
    for path, length in zip(paths, split.shard_lengths, strict=True):
      # Templates of their names can have any folder in them.
      if pathlib.Path(path).parent != pathlib.Path(info.data_dir):
        raise ValueError(f'records of {split.name} lie in another folder')
      file_checks.check_ordinary(path, os.stat(path))
      reader = array_record_module.ArrayRecordReader(os.fspath(path))
      try:
        found = reader.num_records()
      finally:
        reader.close()
      if found != length:
        raise ValueError(
          f'{os.path.basename(path)} has {found} records, '
          f'dataset_info.json says {length}'
        )
