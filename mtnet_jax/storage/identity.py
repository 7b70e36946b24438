"""Whose run directory it is, for as long as a run writes there.

A path is no identity: while a run trains, somebody may rename its directory,
put another in its place, or change its config.json. What the run goes on to
write would then be lost, or lie among what is another's.
"""

import os
import pathlib
import weakref

from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import texts
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors


class Place:
  """A directory, to be known again.

  Args:
    directory: an existing one.
    of: who writes there, for the message: 'run' or 'sweep'.

  Raises:
    errors.InputError: it is gone already.
  """

  def __init__(self, directory, *, of='run'):
    self._directory = pathlib.Path(directory).absolute()
    self._of = of
    # Open, so that its number stays its own: some file systems number a
    # directory anew each time, others give the number of one that is gone away.
    with files.writing(self._directory, '--workdir'):
      opened = os.open(self._directory, os.O_RDONLY)
    weakref.finalize(self, os.close, opened)
    self._opened = opened

  def check(self):
    """Checks that its path still leads to it.

    Raises:
      errors.InputError: it is gone, or another one.
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
      ' same command goes on from its last checkpoint.'
    )


class Identity:
  """That of a run, from its start on.

  Args:
    workdir: the run directory, claimed and locked.
    say: prints a line.
    place: its `Place` since it was locked; None to begin now.

  Attributes:
    earlier_versions: those that the run's checkpoints were written with before,
      oldest first, where they are others than this process's.
  """

  def __init__(self, workdir, *, say=print, place=None):
    self._workdir = pathlib.Path(workdir).absolute()
    self._place = place or Place(workdir)
    self._tree = files.read_json(self._workdir / 'config.json')
    self._config = _config(self._workdir)
    self._say = say
    self.earlier_versions = []

  def check(self):
    """Checks that the directory is still there, and this run's.

    Raises:
      errors.InputError: it is gone, or another one.
    """
    self._place.check()
    if _config(self._workdir) != self._config:
      raise errors.InputError(
        f'{self._workdir}/config.json was changed or removed while this run'
        ' wrote there. Nothing more is written; put it back, and the same'
        ' command goes on from its last checkpoint.'
      )

  def meta(self):
    """What is kept with each checkpoint."""
    return {
      'config': self._tree,
      'versions': [*self.earlier_versions, workdir_lib.versions()],
    }

  def check_stage(self, stage, meta, *, where):
    """Checks that a checkpoint is this run's, and says what else wrote it.

    Args:
      stage: its name.
      meta: what was kept with it.
      where: the checkpoints.

    Raises:
      errors.InputError: it is another run's.
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
    now = workdir_lib.versions()
    for then in written_with:
      if then == now or then in self.earlier_versions:
        continue
      self.earlier_versions.append(then)
      self._say(
        f'{stage}: began with {_differing(then, now)}, goes on with'
        f" {_differing(now, then)}: its numbers may be neither's to the last"
        ' digit.'
      )


def _config(workdir):
  """The bytes of config.json; None where it cannot be read."""
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
