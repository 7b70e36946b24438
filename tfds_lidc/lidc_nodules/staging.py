"""Builds beside the place of a dataset, and moves there what is complete."""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import shutil
import socket
import tempfile

import tensorflow_datasets as tfds

from tfds_lidc import errors


def check_writable(data_dir: pathlib.Path) -> None:
  """Creates the data directory and proves that it can be written."""
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=data_dir):
      pass
  except OSError as e:
    raise errors.InputError(
      f'cannot write into --data_dir={data_dir} ({e.strerror}); choose another'
    ) from e


def prefix() -> str:
  """How the staging folders of this process begin."""
  return f'.incomplete_{os.getpid()}@{socket.gethostname()}_'


def remove_leftovers(data_dir: pathlib.Path) -> None:
  """Removes what builds that were killed on this machine left behind."""
  for path in data_dir.glob(f'.incomplete_*@{socket.gethostname()}_*'):
    pid = path.name.removeprefix('.incomplete_').partition('@')[0]
    try:
      os.kill(int(pid), 0)  # asks whether it is there
    except ProcessLookupError:
      shutil.rmtree(path, ignore_errors=True)
    except (PermissionError, ValueError):
      continue  # someone else's


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Silences what TFDS says of a build: our bars, which know their ends, would
  interleave with its own, and it announces the staging directory as final."""
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()


def publish(
  staging: pathlib.Path, data_dir: pathlib.Path, staged: os.PathLike
) -> None:
  """Moves a finished build, and what TFDS keeps beside it, into place."""
  version = pathlib.Path(staged).relative_to(staging)
  # TFDS notes the default config under the dataset, for every config alike.
  notes = pathlib.Path(version.parts[0]) / '.config'
  shutil.copytree(staging / notes, data_dir / notes, dirs_exist_ok=True)
  target = data_dir / version
  target.parent.mkdir(parents=True, exist_ok=True)
  if target.exists():
    os.rename(target, staging / 'replaced')
  os.rename(staging / version, target)
