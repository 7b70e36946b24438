"""Writes files and folders completely or not at all, and reads small files."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
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
from typing import Any

from mtnet_jax.system import errors

# A table of a hundred thousand nodules takes a third of this.
_MAX_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def writing(
  path: str | os.PathLike[str], flag: str | None = None
) -> Iterator[None]:
  """Turns errors of the operating system into `InputError`.

  Args:
    path: what the block writes.
    flag: the flag that chooses another path, if there is one.
  """
  try:
    yield
  except OSError as error:
    reason = f': {error.strerror}'
    if flag:
      reason = f' ({error.strerror}): choose another {flag}'
    raise errors.InputError(f'{path} cannot be written{reason}.') from error


def write_bytes(path: str | os.PathLike[str], data: bytes | bytearray) -> None:
  """Writes under a temporary name and renames, so no reader sees half a file.

  Raises:
    errors.InputError: it cannot be written; the previous file stays.
  """
  from tfds_lidc.folder_swap import staged as staged_lib

  path = pathlib.Path(path)
  with writing(path), staged_lib.file(path) as staged:
    staged.write_bytes(data)
    os.replace(staged, path)


def check_spelling(path: str | os.PathLike[str]) -> None:
  """Refuses a path whose bytes would differ between Python and C++ libraries.

  C++ libraries expect names in UTF-8; Python uses the encoding of the locale.

  Raises:
    errors.InputError: the absolute path is not ASCII and the locale is not
      UTF-8, or the path cannot be encoded in UTF-8.
  """
  whole = os.path.abspath(path)
  if whole.isascii():
    return
  encoding = sys.getfilesystemencoding()
  if encoding != 'utf-8':
    raise errors.InputError(
      f'{path} has characters that this locale ({encoding}) does not encode as'
      ' UTF-8: set PYTHONUTF8=1.'
    )
  try:
    whole.encode()
  except UnicodeEncodeError as error:
    raise errors.InputError(
      f'{path} has a name that is not valid UTF-8: rename it.'
    ) from error


def make_folder(
  path: str | os.PathLike[str], flag: str = '--workdir'
) -> pathlib.Path:
  """Creates a folder if needed and checks that files can be created in it.

  Args:
    path: the folder.
    flag: the flag that chooses another folder, for messages.

  Returns:
    The folder.

  Raises:
    errors.InputError: the folder cannot be written.
  """
  path = pathlib.Path(path)
  with writing(path, flag):
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  return path


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a folder to write beside `path`, and moves it there at the end.

  Raises:
    errors.InputError: something exists at `path`, or it cannot be written;
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
    # Removed even if `path` exists: no later command would remove them.
    swap.remove_leftovers(path.parent, path.name)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
      raise errors.InputError(
        f'{path} exists already: choose another --out, or delete it.'
      )
    with swap.created(path) as staged:
      yield staged


@contextlib.contextmanager
def replaced_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a folder to write beside `path`, which replaces it at the end.

  The folder at `path` stays until then, and stays if the block raises.

  Raises:
    errors.InputError: it cannot be written.
  """
  from tfds_lidc.folder_swap import swap

  path = pathlib.Path(path).absolute()
  with writing(path), swap.replaced(path) as staged:
    yield staged


def remove_leftovers(directory: str | os.PathLike[str]) -> None:
  """Removes unfinished files of killed processes, and restores the old ones.

  It touches only files that this package wrote and that no running process
  owns; see `tfds_lidc.folder_swap`.
  """
  from tfds_lidc.folder_swap import swap

  with writing(directory):
    swap.remove_leftovers(directory)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes text as UTF-8, as `write_bytes` does.

  Text may hold names of files of any bytes; bytes that are not UTF-8 are
  escaped.
  """
  write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path: str | os.PathLike[str], tree: Any) -> None:
  """Writes indented JSON; raises `ValueError` for NaN, which JSON lacks."""
  write_text(path, json.dumps(tree, indent=2, allow_nan=False) + '\n')


def read_bytes(path: str | os.PathLike[str]) -> bytes:
  """Reads a JSON, CSV or other text file, which anyone may have written.

  Raises:
    OSError: the file cannot be read, is not a regular file, or is larger than
      any such file should be.
  """
  data = bytearray()
  with open(path, 'rb', opener=_open_without_waiting) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise OSError(errno.EINVAL, 'it is not a regular file')
    # In blocks: the size is checked while reading, since a file can grow and
    # some file systems report no size.
    while block := file.read(_BLOCK_BYTES):
      data += block
      if len(data) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f'it is over {_MAX_BYTES >> 20} MiB')
  return bytes(data)


def _open_without_waiting(path, flags):
  """Opens a file; a pipe without a writer does not block."""
  return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))


def read_json(path: str | os.PathLike[str]) -> Any:
  """Reads JSON.

  Raises:
    errors.InputError: the file is missing or damaged.
  """
  try:
    return json.loads(read_bytes(path).decode('utf-8'))
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  except (RecursionError, ValueError) as error:
    raise errors.InputError(f'{path} is damaged: {error}.') from error


def write_csv(
  path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]
) -> None:
  """Writes a row per dict; cells of keys that a dict lacks are empty."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, names, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  write_text(path, text.getvalue())
