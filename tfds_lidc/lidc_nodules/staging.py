"""Stages builds beside their target, and publishes complete ones."""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import shutil
import tempfile

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import file_utils

from tfds_lidc import errors
from tfds_lidc.folder_swap import staged as staged_lib
from tfds_lidc.folder_swap import swap

_NOTES = '.config'


def check_writable(data_dir: pathlib.Path) -> None:
  """Creates the data directory and checks that it can be written.

  Raises:
    InputError: it cannot be written.
  """
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=data_dir):
      pass
  except OSError as e:
    raise errors.InputError(
      f'cannot write into --data_dir={data_dir} ({e.strerror}); choose another'
    ) from e


@contextlib.contextmanager
def folder(builder: tfds.core.DatasetBuilder) -> Iterator[pathlib.Path]:
  """Yields a hidden folder on the disk of the dataset, removed at the end."""
  parent = _parents(builder)[-1]
  if os.path.islink(builder.data_path):
    parent = swap.resolve(builder.data_path).parent
  with staged_lib.folder(parent, builder.name) as staged:
    yield staged


def remove_leftovers(builder: tfds.core.DatasetBuilder) -> None:
  """Removes what killed builds left behind, on any machine with this folder.

  A lock distinguishes them from builds that are running.
  """
  root = pathlib.Path(builder.data_dir_root, builder.name)
  for folder_path in [
    *_parents(builder),
    swap.resolve(builder.data_path).parent,
    root / _NOTES,
    root / '.cache' / 'built_from',
  ]:
    swap.remove_leftovers(folder_path)


def mend(data_dir: str | os.PathLike[str] | None, name: str) -> None:
  """Restores all datasets whose replacement was interrupted by a kill.

  Those that this user may not rename stay as they are; `check_not_stranded`
  reports them.

  Args:
    data_dir: folder of all datasets; None for all folders in which TFDS looks.
    name: name of the dataset; covers all of its configs and versions.
  """
  for root in file_utils.list_data_dirs(data_dir):
    if '://' in os.fspath(root):
      continue  # this package only builds on local disks
    for config in pathlib.Path(root, name).glob('[!.]*/'):
      with contextlib.suppress(OSError):
        swap.mend_all(config)


def check_not_stranded(path: os.PathLike[str]) -> None:
  """Checks that a missing dataset is not merely waiting to be restored.

  Args:
    path: folder of the dataset.

  Raises:
    InputError: a build was killed while it replaced the dataset.
  """
  try:
    if not swap.mend(path):
      return
    outcome = 'it is restored now: run the command again'
  except OSError as e:
    outcome = (
      f'this user cannot restore it ({e.strerror}): run the command as the '
      'user who built it'
    )
  raise errors.InputError(
    f'{path} was being replaced when the build was killed; {outcome}'
  )


def _parents(builder: tfds.core.DatasetBuilder) -> list[pathlib.Path]:
  """Returns the existing parent folders of a build, the nearest one last.

  Each may be a link to another disk; the nearest one is on the build's disk.
  """
  root = pathlib.Path(builder.data_dir_root)
  parents = reversed(pathlib.Path(builder.data_path).parents)
  return [x for x in parents if x.is_relative_to(root) and x.is_dir()]


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Silences TFDS during a build.

  Its progress bars would mix with ours, which show the total, and it would
  announce the staging folder as the final one.
  """
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()


def publish(
  staging: pathlib.Path, data_dir: pathlib.Path, staged: os.PathLike[str]
) -> None:
  """Moves a finished build, and TFDS's notes beside it, to the data directory.

  Args:
    staging: the staging folder, which TFDS took for a data directory.
    data_dir: folder of all datasets.
    staged: the folder of the build's version inside `staging`.
  """
  version = pathlib.Path(staged).relative_to(staging)
  # TFDS notes the default config in a folder of the dataset. These notes are
  # the same for every build, so they can be replaced before the build is moved.
  notes = pathlib.Path(version.parts[0]) / _NOTES
  (data_dir / notes).mkdir(parents=True, exist_ok=True)
  for path in (staging / notes).iterdir():
    # Copied, since the build may be on another disk than the notes.
    with staged_lib.file(data_dir / notes / path.name) as note:
      shutil.copyfile(path, note)
      os.replace(note, data_dir / notes / path.name)
  target = data_dir / version
  target.parent.mkdir(parents=True, exist_ok=True)
  swap.replace(staging / version, target, staging)
