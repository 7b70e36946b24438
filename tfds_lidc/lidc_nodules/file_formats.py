"""Supports two file formats of one build: array_record and TFRecord.

TFDS reads array_record files without TensorFlow (`tfds.data_source`). A
`tf.data.Dataset` (`tfds.load`) needs TFRecord files. `add_tfrecord` copies the
records of a build into TFRecord files in the same folder, without the CT:

    python -m tfds_lidc.build --config=paper --tfrecord

Afterwards the folder's `dataset_info.json` names TFRecord as its format and
array_record as the alternative. In this order TFDS's own readers find the right
files for both calls, even without this package. (In the reverse order,
`tfds.load` would read array_record files as TFRecord.)
"""

import importlib.util
import os
import pathlib
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core.utils import lazy_imports_utils

from tfds_lidc import errors
from tfds_lidc.lidc_nodules import locks
from tfds_lidc.lidc_nodules import staging

_Format = file_adapters.FileFormat
_WITHOUT_TENSORFLOW = (
  "needs TensorFlow, which is not installed; run: pip install 'mtnet_jax[tf]'"
)


def check_tensorflow(purpose: str) -> None:
  """Raises `InputError` if TensorFlow is missing; does not import it.

  Args:
    purpose: what needs TensorFlow, for the message.

  Raises:
    InputError: TensorFlow is not installed.
  """
  if importlib.util.find_spec('tensorflow') is None:
    raise errors.InputError(f'{purpose} {_WITHOUT_TENSORFLOW}')


def choose(info: tfds.core.DatasetInfo, wanted: Any) -> None:
  """Chooses the format in which a builder writes or reads its files.

  Args:
    info: the builder's info; changed in place.
    wanted: name or value of a format; None for the format on this disk, or for
      array_record, which needs no TensorFlow, if the dataset is not built.

  Raises:
    ValueError: the dataset is built, but not in the format `wanted`.
  """
  if not info.initialized:
    info.set_file_format(wanted or _Format.ARRAY_RECORD, override=True)
    return
  # TFDS only restores the alternatives of read-only builders. The main format
  # is listed, too, because readers may switch to another one.
  info.alternative_file_formats[:] = [
    info.file_format,
    *map(_Format.from_value, info.as_proto.alternative_file_formats),
  ]
  if wanted and _Format.from_value(wanted) in info.available_file_formats():
    _switch(info, wanted)
  else:
    info.set_file_format(wanted)


def use_tfrecord(info: tfds.core.DatasetInfo, build_command: str) -> None:
  """Makes `as_dataset` read TFRecord files.

  Args:
    info: the builder's info; changed in place.
    build_command: the command that builds the dataset, for the message.

  Raises:
    InputError: there are no TFRecord files, or TensorFlow is missing.
  """
  if _Format.TFRECORD not in info.available_file_formats():
    raise errors.InputError(
      f'{info.full_name} has array_record files, which tfds.data_source '
      'reads; for a tf.data.Dataset (tfds.load, as_dataset) add TFRecord files '
      f'to them, once: {build_command} --tfrecord'
    )
  check_tensorflow('tfds.load')
  if info.file_format != _Format.TFRECORD:
    _switch(info, _Format.TFRECORD)


def add_tfrecord(builder: tfds.core.DatasetBuilder) -> None:
  """Adds TFRecord files with the same records, in the same shards and order.

  dataset_info.json names the new files only after all are complete, so that a
  failure or interruption leaves the build usable as it was.

  Args:
    builder: the builder of a complete build in array_record. Builders that are
      opened afterwards find both formats.

  Raises:
    InputError: TensorFlow is missing, or the folder cannot be written.
  """
  check_tensorflow('writing TFRecord files')
  folder = pathlib.Path(builder.data_path)
  root, config = pathlib.Path(builder.data_dir_root), builder.builder_config
  try:
    # Another process may be building it again, or just have done so.
    with locks.exclusive(root, config.name):
      info = tfds.builder_from_directory(folder).info
      if _Format.TFRECORD in info.available_file_formats():
        return
      reader = tfds.builder_from_directory(folder)
      with staging.folder(builder) as parent:
        staged = parent / 'tfrecord'
        staged.mkdir()
        for split in info.splits.values():
          _write_split(reader, split, staged)
        _switch(info, _Format.TFRECORD)
        info.add_alternative_file_format(_Format.ARRAY_RECORD)
        info.write_dataset_info_json(staged)
        # dataset_info.json, which names the other files, comes last.
        for path in sorted(
          staged.iterdir(), key=lambda path: path.suffix == '.json'
        ):
          os.replace(path, folder / path.name)
  except (OSError, lazy_imports_utils.tensorflow.errors.OpError) as e:
    raise errors.InputError(
      f'cannot write TFRecord files into {folder} ({e}); free some space '
      'there, or change its permissions'
    ) from e


def _write_split(
  builder: tfds.core.DatasetBuilder,
  split: tfds.core.SplitInfo,
  folder: pathlib.Path,
) -> None:
  """Copies the serialised records, shard by shard."""
  records = builder.as_data_source(
    split.name,
    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
  )
  name = split.filename_template.replace(
    data_dir=folder, filetype_suffix=_Format.TFRECORD.value
  )
  first = 0
  for shard, length in enumerate(split.shard_lengths):
    file_adapters.TfRecordFileAdapter.write_examples(
      name.sharded_filepath(
        shard_index=shard, num_shards=len(split.shard_lengths)
      ),
      ((i, records[i]) for i in range(first, first + length)),
    )
    first += length


def _switch(info: tfds.core.DatasetInfo, file_format: Any) -> None:
  """Changes the format and thereby the names of the splits' files."""
  info.set_file_format(file_format, override=True, override_if_initialized=True)
