"""Whose run directory it is, for as long as a run writes there.

A path is no identity: while a run trains, somebody may rename its directory,
put another in its place, or change its config.json. What the run goes on to
write would then be lost, or lie among what is another's.
"""

import json
import os
import pathlib
import weakref

from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import texts
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors


class Identity:
  """That of a run, from its start on.

  Args:
    workdir: the run directory, claimed and locked.
    say: prints a line.

  Attributes:
    earlier_versions: those that the run's checkpoints were written with before,
      oldest first, where they are others than this process's.
  """

  def __init__(self, workdir, *, say=print):
    self._workdir = pathlib.Path(workdir).absolute()
    # Open, so that its number stays its own: some file systems number a
    # directory anew each time, others give the number of one that is gone away.
    opened = os.open(self._workdir, os.O_RDONLY)
    weakref.finalize(self, os.close, opened)
    self._opened = opened
    self._config = _config(self._workdir)
    self._tree = json.loads(self._config)
    self._say = say
    self.earlier_versions = []

  def check(self):
    """Checks that the directory is still there, and this run's.

    Raises:
      errors.InputError: it is gone, or another one.
    """
    if not self._is_in_place():
      found = 'is another one now' if self._workdir.exists() else 'is gone'
      raise errors.InputError(
        f'{self._workdir} {found}: it was moved or replaced while this run'
        ' wrote there. Nothing more is written; move it back, and the same'
        ' command goes on from its last checkpoint.'
      )
    if _config(self._workdir) != self._config:
      raise errors.InputError(
        f'{self._workdir}/config.json was changed or removed while this run'
        ' wrote there. Nothing more is written; put it back, and the same'
        ' command goes on from its last checkpoint.'
      )

  def _is_in_place(self):
    try:
      return os.path.samestat(self._workdir.stat(), os.fstat(self._opened))
    except OSError:
      return False

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
