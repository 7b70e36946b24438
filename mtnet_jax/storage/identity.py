"""Checks that a run directory still belongs to the run that writes into it.

A path does not identify a directory: while a run trains, somebody may rename
its directory, put another in its place, or change its config.json. Anything
that the run writes after that would be lost, or be among the files of another
run.
"""

from collections.abc import Callable
from collections.abc import Mapping
import os
import pathlib
from typing import Any
import weakref

from mtnet_jax.storage import configs
from mtnet_jax.storage import environment
from mtnet_jax.storage import files
from mtnet_jax.storage import texts
from mtnet_jax.system import errors


class Place:
  """A directory that can be recognised even if its path leads elsewhere later.

  Args:
    directory: an existing directory.
    of: what writes there, for the message: 'run' or 'sweep'.

  Raises:
    errors.InputError: the directory is gone already.
  """

  def __init__(self, directory: str | os.PathLike[str], *, of: str = 'run'):
    self._directory = pathlib.Path(directory).absolute()
    self._of = of
    # Kept open so that its inode number stays valid: some file systems assign a
    # new number at each lookup, others reuse the number of a deleted directory.
    with files.writing(self._directory, '--workdir'):
      opened = os.open(self._directory, os.O_RDONLY)
    weakref.finalize(self, os.close, opened)
    self._opened = opened

  def check(self) -> None:
    """Checks that the path still leads to this directory.

    Raises:
      errors.InputError: it is gone or was replaced.
    """
    try:
      found = self._directory.stat()
      if os.path.samestat(found, os.fstat(self._opened)):
        return
      what = 'is another one now'
    except OSError:
      what = 'is gone'
    raise errors.InputError(
      f'{self._directory} {what}: it was moved or replaced while this'
      f' {self._of} wrote there. Nothing more is written; move it back, and the'
      ' same command continues from its last checkpoint.'
    )


class Identity:
  """The identity of a run: its directory and its config.json.

  Args:
    workdir: the run directory, claimed and locked.
    say: prints a line.
    place: the directory's `Place`, made when it was locked; by default it is
      made now.

  Attributes:
    earlier_versions: versions of libraries that wrote the run's checkpoints,
      oldest first, without those of this process.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    say: Callable[[str], object] = print,
    place: Place | None = None,
  ):
    self._workdir = pathlib.Path(workdir).absolute()
    self._place = place or Place(workdir)
    self._tree = files.read_json(self._workdir / 'config.json')
    self._config = _config(self._workdir)
    self._say = say
    self.earlier_versions: list[dict[str, str]] = []

  def check(self) -> None:
    """Checks that the directory still exists and belongs to this run.

    Raises:
      errors.InputError: it is gone, or it or its config.json was changed.
    """
    self._place.check()
    if _config(self._workdir) != self._config:
      raise errors.InputError(
        f'{self._workdir}/config.json was changed or removed while this run'
        ' wrote there. Nothing more is written; put it back, and the same'
        ' command continues from its last checkpoint.'
      )

  def meta(self) -> dict[str, Any]:
    """Returns what is stored with each checkpoint."""
    return {
      'config': self._tree,
      'versions': [*self.earlier_versions, environment.versions()],
    }

  def check_stage(
    self, stage: str, meta: Mapping[str, Any], *, where: pathlib.Path
  ) -> None:
    """Checks that a checkpoint belongs to this run, and reports its versions.

    Args:
      stage: name of the stage.
      meta: what was stored with the checkpoint.
      where: the stage's checkpoints, for messages.

    Raises:
      errors.InputError: it belongs to another run.
    """
    configs.check_stage(
      self._tree, meta.get('config'), stage=stage, where=where
    )
    with errors.of_wrong_values(
      f'{where} is damaged', way_out='Train in another --workdir.'
    ):
      texts.check_tree(meta.get('versions', []), where)
      self._compare_versions(stage, meta.get('versions', []))

  def _compare_versions(self, stage, written_with):
    now = environment.versions()
    for then in written_with:
      if then == now or then in self.earlier_versions:
        continue
      self.earlier_versions.append(then)
      self._say(
        f'{stage}: began with {_differing(then, now)}, continues with'
        f' {_differing(now, then)}: its numbers may not be reproducible to the'
        ' last digit with either.'
      )


def _config(workdir):
  """Returns the bytes of config.json; None if it cannot be read."""
  try:
    return files.read_bytes(workdir / 'config.json')
  except OSError:
    return None


def _differing(versions, others):
  return ', '.join(
    f'{name} {version}'
    for name, version in versions.items()
    if others.get(name) != version
  )
