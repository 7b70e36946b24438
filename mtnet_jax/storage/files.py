"""Files of a run: written whole or not at all."""

import contextlib
import csv
import errno
import io
import json
import os
import pathlib
import stat
import sys
import tempfile

from mtnet_jax.system import errors

# A table of a hundred thousand nodules takes a third of this.
_MAX_BYTES = 64 << 20
_PART = 1 << 20


@contextlib.contextmanager
def writing(path, flag=None):
  """Turns errors of the operating system into `InputError`.

  Args:
    path: what the block writes.
    flag: by which another path can be chosen, if there is one.
  """
  try:
    yield
  except OSError as error:
    reason = f': {error.strerror}'
    if flag:
      reason = f' ({error.strerror}): choose another {flag}'
    raise errors.InputError(f'{path} cannot be written{reason}.') from error


def write_bytes(path, data):
  """Writes under a temporary name and renames, so no reader sees a half.

  Raises:
    errors.InputError: it cannot be written; what was there stays.
  """
  from tfds_lidc.folder_swap import staged as staged_lib

  path = pathlib.Path(path)
  with writing(path), staged_lib.file(path) as staged:
    staged.write_bytes(data)
    os.replace(staged, path)


def check_spelling(path):
  """Refuses a path that libraries in C++ would spell otherwise, or not at all.

  They take names for UTF-8, Python what the locale says.

  Raises:
    errors.InputError: the path, or the working directory that it begins in, is
      such a path.
  """
  whole = os.path.abspath(path)
  if whole.isascii():
    return
  encoding = sys.getfilesystemencoding()
  if encoding != 'utf-8':
    raise errors.InputError(
      f'{path} has letters for which this locale ({encoding}) has no name that'
      ' all libraries share: set PYTHONUTF8=1.'
    )
  try:
    whole.encode()
  except UnicodeEncodeError as error:
    raise errors.InputError(
      f'{path} has a name that is no UTF-8: rename it.'
    ) from error


def make_folder(path, flag='--workdir'):
  """Creates a folder, unless it exists, and proves that it can be written.

  Args:
    path: the folder.
    flag: by which another can be chosen.

  Returns:
    `pathlib.Path` of it.

  Raises:
    errors.InputError: it cannot be written.
  """
  path = pathlib.Path(path)
  with writing(path, flag):
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  return path


@contextlib.contextmanager
def new_folder(path):
  """Yields a folder beside `path` to write, and moves it there when complete.

  Raises:
    errors.InputError: there is something already, or it cannot be written;
      nothing is left behind.
  """
  from tfds_lidc.folder_swap import swap

  path = pathlib.Path(path).absolute()
  with writing(path, '--out'):
    if path.is_dir() and path.samefile(pathlib.Path.cwd()):
      raise errors.InputError(
        f'{path} is the working directory, which cannot be replaced: choose'
        ' another --out.'
      )
    # Also those of what has its place: nobody else would meet them.
    swap.remove_leftovers(path.parent, path.name)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
      raise errors.InputError(
        f'{path} exists already: choose another --out, or delete it.'
      )
    with swap.created(path) as staged:
      yield staged


@contextlib.contextmanager
def replaced_folder(path):
  """Yields a folder beside `path` to write, which replaces it when complete.

  What was at `path` stays until then, and stays if anything is raised.

  Raises:
    errors.InputError: it cannot be written.
  """
  from tfds_lidc.folder_swap import swap

  path = pathlib.Path(path).absolute()
  with writing(path), swap.replaced(path) as staged:
    yield staged


def remove_leftovers(directory):
  """Removes what killed processes left unfinished, and gives back the old.

  Only what this package wrote there, and what has no living owner: see
  `tfds_lidc.folder_swap`.
  """
  from tfds_lidc.folder_swap import swap

  with writing(directory):
    swap.remove_leftovers(directory)


def write_text(path, text):
  """`write_bytes` of UTF-8.

  Names of files may be of any bytes; those that are no text are escaped.
  """
  write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path, tree):
  """Writes indented JSON; NaN is refused, because JSON has none."""
  write_text(path, json.dumps(tree, indent=2, allow_nan=False) + '\n')


def read_bytes(path):
  """Reads a JSON, CSV or other text, which anyone may have written.

  Raises:
    OSError: it cannot be read, is no file but a pipe or a device, or is larger
      than any such file should be.
  """
  data = bytearray()
  with open(path, 'rb', opener=_open_at_once) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise OSError(errno.EINVAL, 'it is no ordinary file')
    # In parts, because a file can grow, and some systems tell no length.
    while part := file.read(_PART):
      data += part
      if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f'it is over {_MAX_BYTES >> 20} MiB')
  return bytes(data)


def _open_at_once(path, flags):
  """Opens without waiting, as a pipe would for whoever writes into it."""
  return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))


def read_json(path):
  """Reads JSON.

  Raises:
    errors.InputError: it is missing or damaged.
  """
  try:
    return json.loads(read_bytes(path).decode('utf-8'))
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  except (RecursionError, ValueError) as error:
    raise errors.InputError(f'{path} is damaged: {error}.') from error


def write_csv(path, rows):
  """Writes dicts with the same keys, or with some of the first ones'."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, names, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  write_text(path, text.getvalue())
