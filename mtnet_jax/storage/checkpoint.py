"""Checkpoints of one stage: the latest state and the best epoch.

    DIR/latest/<step>/{state,meta}    everything that training continues from
    DIR/best/<step>/{state,meta}      params and batch_stats of a best epoch

Orbax writes under a temporary name and renames, so a killed process leaves
the previous checkpoint. Arrays are saved from the host without any device
layout: a checkpoint of eight GPUs opens on one CPU. Only the first of several
processes reads and writes checkpoints, so hosts need no common file system.

The history in the meta of the latest checkpoint says which epoch is the best.
`best` holds that epoch and the best epoch of the checkpoint before. While an
epoch is being saved it also holds one that no history lists yet; see
`histories`.

A digest in the meta shows whether the arrays that are read are those that were
written. Orbax stores no digest, and bits do flip on disks and in transfers.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import shutil
import sys
from typing import Any

from flax import serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from mtnet_jax.storage import files
from mtnet_jax.storage import histories
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import orbax_errors
from mtnet_jax.storage import step_folders
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors

FORMAT = 2
# Format 1 had no digest.
_READABLE = (1, 2)


class _DamagedError(errors.InputError):
  """A checkpoint does not hold what was saved."""


class Checkpoints:
  """The checkpoints of one stage below one directory.

  Args:
    directory: where they are saved; its name is that of the stage.
    identity: identity of the run that the checkpoints belong to; None if they
      belong to no run.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    identity: identity_lib.Identity | None = None,
  ):
    files.check_spelling(directory)
    self._directory = pathlib.Path(directory).absolute()
    self._identity = identity
    self._latest = self._manager('latest', keep=2)
    # `_delete_discarded` deletes from these, not Orbax.
    self._best = self._manager('best', keep=None)

  def _manager(self, name, *, keep):
    directory = self._directory / name
    # Orbax does not create it when only some of the processes take part.
    directory.mkdir(parents=True, exist_ok=True)
    with files.writing(directory):
      step_folders.mend(directory)
    this_process = jax.process_index()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=False,
      create=False,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=this_process, active_processes={this_process}
      ),
    )
    return ocp.CheckpointManager(directory, options=options)

  def save_latest(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Saves a tree of host arrays and a JSON dict under a step number.

    Then deletes every best checkpoint that is the best neither in this history
    nor in the one of the checkpoint before.
    """
    state = serialization.to_state_dict(state)
    _save(self._latest, step, state, self._with_identity(meta))
    self._delete_discarded()

  def save_best(
    self, step: int, variables: Mapping[str, Any], meta: Mapping[str, Any]
  ) -> None:
    """Saves {'params', 'batch_stats'} of host arrays as the best so far.

    They count as the best once `save_latest` saves a history that says so.
    """
    meta = self._with_identity(meta)
    # Later steps come from a history that was discarded, and Orbax refuses to
    # save a step before them.
    self._delete_best(lambda other: other > step)
    _save(self._best, step, variables, meta)

  def _delete_discarded(self):
    folders = step_folders.found(self._latest.directory).values()
    found = [histories.read(folder) for folder in folders]
    wanted = {histories.best_step(x) for x in found if x is not None} - {None}
    # If a wanted one is missing, the others may still be of use.
    complete = wanted and wanted <= set(self._best.all_steps())
    if complete and None not in found:
      self._delete_best(lambda other: other not in wanted)

  def _delete_best(self, chosen):
    steps = [step for step in self._best.all_steps() if chosen(step)]
    with files.writing(self._best.directory):
      for step in steps:
        step_folders.remove(self._best.directory, step)
    if steps:
      self._best.reload()

  def _with_identity(self, meta):
    if self._identity is None:
      return meta
    self._identity.check()
    return {**meta, **self._identity.meta()}

  def _check_identity(self, meta):
    if self._identity is not None:
      self._identity.check_stage(
        self._directory.name, meta, where=self._directory
      )

  def load_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """Loads the newest state and its meta; None if there is no checkpoint.

    A damaged checkpoint is moved aside with a warning, and the one before it
    is loaded.

    Args:
      like: a state of the structure to return; None for plain dicts.

    Raises:
      errors.InputError: all checkpoints are damaged, or another version or
        another run wrote them.
    """
    damaged = None
    while (step := self._latest.latest_step()) is not None:
      try:
        tree, meta = _restore(self._latest, step)
        self._check_identity(meta)
        return serialization.from_state_dict(like, tree), meta
      except _DamagedError as error:
        damaged = error
        self._put_aside(step, error)
    if damaged is not None:
      raise errors.InputError(
        f'{damaged}, and so are all checkpoints before it: delete'
        f' {self._directory} to train the stage again.'
      )
    return None

  def _put_aside(self, step, error):
    if self._identity is not None:
      self._identity.check()
    aside = self._directory / 'damaged' / str(step)
    print(
      f'warning: {errors.one_line(error)}: it was moved to {aside}.',
      file=sys.stderr,
    )
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(self._directory / 'latest' / str(step), aside)
    self._latest.reload()

  def check_best(self, history: Sequence[Mapping[str, Any]]) -> None:
    """Checks that a history's best checkpoint exists, or will be saved again.

    Raises:
      errors.InputError: it is missing.
    """
    step = histories.best_step(history)
    # Earlier versions deleted it as soon as a newer one was saved. If they were
    # killed after that, training reaches the epoch of the newer one again.
    if step is not None and max(self._best.all_steps(), default=-1) < step:
      raise histories.missing(self._directory, step)

  def load_best(
    self, history: Sequence[Mapping[str, Any]] | None = None
  ) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Loads {'params', 'batch_stats'} of the best epoch and its meta.

    Args:
      history: a dict per epoch; by default that of the latest checkpoint.

    Returns:
      The variables as NumPy arrays and the meta; None if no epoch is the best.

    Raises:
      errors.InputError: the checkpoint is missing or damaged, or another
        version or another run wrote it.
    """
    folder = histories.best_folder(self._directory, history)
    if folder is None:
      return None
    best = _load_best(self._best, folder, self._directory)
    self._check_identity(best[1])
    return best


def load_best(
  directory: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any]] | None:
  """Loads as `Checkpoints.load_best` does, without writing to the directory."""
  directory = pathlib.Path(directory).absolute()
  folder = histories.best_folder(directory)
  if folder is None:
    return None
  options = ocp.CheckpointManagerOptions(
    create=False, enable_async_checkpointing=False
  )
  manager = ocp.CheckpointManager(folder.parent, options=options)
  return _load_best(manager, folder, directory)


def _load_best(manager, folder, directory):
  try:
    return _restore(manager, int(folder.name))
  except _DamagedError as error:
    raise errors.InputError(
      f'{error}: {histories.way_out(directory)}'
    ) from error


def _save(manager, step, tree, meta):
  tree = jax.tree.map(np.asarray, tree)
  meta = {'format': FORMAT, 'sha256': tensors.digest(tree), **meta}
  try:
    # A run that was killed between saving `best` and `latest` saves the same
    # step again with the same values. A run that was stopped at the end of an
    # epoch saves it again with that epoch's row in its history.
    if step in manager.all_steps():
      if _has_meta(manager, step, meta):
        return
      _save_again(manager, step, tree, meta)
    else:
      _save_new(manager, step, tree, meta)
  except (OSError, ValueError) as error:
    reason = orbax_errors.reason(error)
    raise errors.InputError(
      f'{manager.directory}/{step} cannot be written: {reason}. The checkpoint'
      ' before it is kept, and the same command continues from there.'
    ) from error


def _has_meta(manager, step, meta):
  try:
    return _restore_meta(manager, step) == meta
  # A damaged checkpoint is saved again.
  except Exception:
    return False


def _save_again(manager, step, tree, meta):
  try:
    with step_folders.replaced(manager.directory, step):
      manager.reload()
      _save_new(manager, step, tree, meta)
  finally:
    manager.reload()


def _save_new(manager, step, tree, meta):
  args = ocp.args.Composite(
    state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta)
  )
  with orbax_errors.hidden():
    manager.save(step, args=args)


def _restore(manager, step):
  """Returns the tree and the meta that were saved under a step.

  Raises:
    _DamagedError: the checkpoint does not hold what was saved.
    errors.InputError: another version wrote it.
  """
  try:
    # The meta is read first: another version may store arrays differently.
    meta = _restore_meta(manager, step)
    found = meta.get('format')
    if found in _READABLE:
      state = manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
      ).state
      damaged = found >= 2 and tensors.digest(state) != meta['sha256']
  # Damage can be anywhere, so Orbax may raise any exception.
  except Exception as error:
    raise _DamagedError(
      f'{manager.directory}/{step} is damaged'
      f' ({orbax_errors.first_line(error)})'
    ) from error
  if found not in _READABLE:
    raise errors.InputError(
      f'{manager.directory}/{step} has checkpoint format {str(found)[:20]},'
      f' but this version reads {FORMAT}: use the version of mtnet_jax that'
      ' wrote it.'
    )
  if damaged:
    raise _DamagedError(
      f'{manager.directory}/{step} is damaged (its arrays are not those that'
      ' were saved)'
    )
  return state, meta


def _restore_meta(manager, step):
  args = ocp.args.Composite(meta=ocp.args.JsonRestore())
  return manager.restore(step, args=args).meta
