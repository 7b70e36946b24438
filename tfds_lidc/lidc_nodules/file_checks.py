"""What lies in the folder of a dataset, before TFDS reads any of it."""

import errno
import json
import os
import stat
from typing import Any

from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from tfds_lidc import paths

# Those of the whole LIDC-IDRI have 30 kB.
_MAX_BYTES = 16 << 20
_OWN_FEATURES = 'tensorflow_datasets.core.features.'


def check(folder: str | os.PathLike) -> None:
  """Checks what lies in the folder of a dataset, before TFDS reads any of it.

  TFDS would wait for ever for what a pipe says, read a device without an end
  into memory, and import the modules that features.json names.

  Args:
    folder: that of a version; there may be none yet.

  Raises:
    ValueError, OSError or any other: there is something else than a build
      writes.
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
    except FileNotFoundError:  # A build may be just replacing the folder.
      continue
    if stat.S_ISDIR(status.st_mode):
      continue
    check_ordinary(path, status)
    if name.endswith(('.json', '.txt')) and status.st_size > _MAX_BYTES:
      raise OSError(errno.EFBIG, f'{name} is over {_MAX_BYTES >> 20} MiB')
  if 'features.json' in names:
    _check_features(read_json(os.path.join(folder, 'features.json')))


def check_ordinary(path: str | os.PathLike, status: os.stat_result) -> None:
  """Raises `OSError` where a status is not that of an ordinary file."""
  if not stat.S_ISREG(status.st_mode):
    raise OSError(f'{os.path.basename(path)} is no ordinary file')


def read_json(path: str) -> Any:
  """Reads JSON of a length that such a file may have."""
  with paths.open_file(path) as file:
    return json.loads(file.read(_MAX_BYTES).decode('utf-8'))


def _check_features(content: Any) -> None:
  """Refuses classes of features that are not TFDS's own.

  They are looked for in the message that TFDS makes of the text, which can say
  the same in several ways. Those of TFDS before 4.5, and features that hold
  JSON as text in JSON, are none of this dataset's.
  """
  if 'type' in content:
    raise ValueError('features.json is of an old version of TFDS')
  message = json_format.ParseDict(content, feature_pb2.Feature())
  waiting = [json_format.MessageToDict(message)]
  while waiting:
    found = waiting.pop()
    if isinstance(found, list):
      waiting.extend(found)
    if not isinstance(found, dict):
      continue
    waiting.extend(found.values())
    name = found.get('pythonClassName', _OWN_FEATURES)
    if isinstance(name, str) and not name.startswith(_OWN_FEATURES):
      raise ValueError(f'features.json asks for the class {name[:80]!r}')
    if 'jsonFeature' in found:
      raise ValueError('features.json has a feature in text')
