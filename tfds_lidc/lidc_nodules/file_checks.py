"""Checks the files in the folder of a dataset before TFDS reads them."""

import errno
import json
import os
import stat
from typing import Any

from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from tfds_lidc import paths

# The files of the whole LIDC-IDRI have 30 kB.
_MAX_BYTES = 16 << 20
_OWN_FEATURES = 'tensorflow_datasets.core.features.'


def check(folder: str | os.PathLike[str]) -> None:
  """Checks the files in the folder of a dataset before TFDS reads them.

  TFDS would wait for ever for the content of a pipe, read an endless device
  into memory, and import the modules that features.json names.

  Args:
    folder: the folder of a version; need not exist.

  Raises:
    Exception: there is a file that no build writes; ValueError, OSError or any
      other type.
  """
  if '://' in os.fspath(folder):
    return
  try:
    names = os.listdir(folder)
  except (FileNotFoundError, NotADirectoryError):
    return
  for name in names:
    path = os.path.join(folder, name)
    try:
      status = os.stat(path)
    except FileNotFoundError:  # a build may be replacing the folder right now
      continue
    if stat.S_ISDIR(status.st_mode):
      continue
    check_ordinary(path, status)
    if name.endswith(('.json', '.txt')) and status.st_size > _MAX_BYTES:
      raise OSError(errno.EFBIG, f'{name} is over {_MAX_BYTES >> 20} MiB')
  if 'features.json' in names:
    _check_features(read_json(os.path.join(folder, 'features.json')))


def check_ordinary(
  path: str | os.PathLike[str], status: os.stat_result
) -> None:
  """Raises `OSError` if a file is not a regular file, such as a pipe."""
  if not stat.S_ISREG(status.st_mode):
    raise OSError(f'{os.path.basename(path)} is not a regular file')


def read_json(path: str) -> Any:
  """Reads a JSON file, up to a maximum length."""
  with paths.open_file(path) as file:
    return json.loads(file.read(_MAX_BYTES).decode('utf-8'))


def _check_features(content: Any) -> None:
  """Raises `ValueError` for classes of features that are not TFDS's own.

  The check works on the protobuf message that TFDS parses, because the text can
  say the same in several ways. Formats that this dataset does not use are
  rejected, too: that of TFDS before 4.5, and JSON as text inside JSON.
  """
  if 'type' in content:
    raise ValueError('features.json is of an old version of TFDS')
  message = json_format.ParseDict(content, feature_pb2.Feature())
  pending: list[Any] = [json_format.MessageToDict(message)]
  while pending:
    found = pending.pop()
    if isinstance(found, list):
      pending.extend(found)
    if not isinstance(found, dict):
      continue
    pending.extend(found.values())
    name = found.get('pythonClassName', _OWN_FEATURES)
    if isinstance(name, str) and not name.startswith(_OWN_FEATURES):
      raise ValueError(f'features.json asks for the class {name[:80]!r}')
    if 'jsonFeature' in found:
      raise ValueError('features.json has a feature in text')
