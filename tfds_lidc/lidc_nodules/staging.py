"""Builds beside the place of a dataset, and moves there what is complete."""

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
  """Creates the data directory and proves that it can be written."""
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
  """Yields a hidden folder for files that are moved into a dataset's own."""
  place = _places(builder)[-1]
  if os.path.islink(builder.data_path):
    place = swap.resolve(builder.data_path).parent
  with staged_lib.folder(place, builder.name) as staged:
    yield staged


def remove_leftovers(builder: tfds.core.DatasetBuilder) -> None:
  """Removes what builds left behind that were killed.

  Those of any machine that shares the folder: a lock tells who is alive.
  """
  root = pathlib.Path(builder.data_dir_root, builder.name)
  for place in [
    *_places(builder),
    swap.resolve(builder.data_path).parent,
    root / _NOTES,
    root / '.cache' / 'built_from',
  ]:
    swap.remove_leftovers(place)


def mend(data_dir: str | os.PathLike | None, name: str) -> None:
  """Gives back the datasets that were to be replaced when a build was killed.

  Those that this user may not rename stay, see `check_not_stranded`.

  Args:
    data_dir: where datasets live; None for all folders in which TFDS looks.
    name: of the dataset, of which all configs and versions are looked at.
  """
  for place in file_utils.list_data_dirs(data_dir):
    if '://' in os.fspath(place):
      continue  # Nobody builds there.
    for config in pathlib.Path(place, name).glob('[!.]*/'):
      with contextlib.suppress(OSError):
        swap.mend_all(config)


def check_not_stranded(path: os.PathLike) -> None:
  """Refuses to say of a dataset that it was not built, if it only has to move.

  Raises:
    InputError: a build was killed while it replaced the dataset.
  """
  try:
    if not swap.mend(path):
      return
    outcome = 'it is there again: give the command again'
  except OSError as e:
    outcome = f'this user cannot give it back ({e.strerror}): another has to'
  raise errors.InputError(
    f'{path} was being replaced when the build was killed; {outcome}'
  )


def _places(builder: tfds.core.DatasetBuilder) -> list[pathlib.Path]:
  """The folders above a build that are there, the nearest last.

  Each may be a link to another disk, and the nearest one has the build's.
  """
  root = pathlib.Path(builder.data_dir_root)
  parents = reversed(pathlib.Path(builder.data_path).parents)
  return [x for x in parents if x.is_relative_to(root) and x.is_dir()]


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
  # TFDS notes the default config under the dataset, for every build alike. So
  # they may come first, each whole.
  notes = pathlib.Path(version.parts[0]) / _NOTES
  (data_dir / notes).mkdir(parents=True, exist_ok=True)
  for path in (staging / notes).iterdir():
    # Copied, since the configs may lie on another disk than their notes.
    with staged_lib.file(data_dir / notes / path.name) as note:
      shutil.copyfile(path, note)
      os.replace(note, data_dir / notes / path.name)
  target = data_dir / version
  target.parent.mkdir(parents=True, exist_ok=True)
  swap.replace(staging / version, target, staging)
