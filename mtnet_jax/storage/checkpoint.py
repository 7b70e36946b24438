"""Checkpoints of one stage: where training continues, and the best epoch.

    DIR/latest/<step>/{state,meta}    everything that training continues from
    DIR/best/<step>/{state,meta}      params and batch_stats of a best epoch

Orbax writes under a temporary name and renames, so a killed process leaves
the previous checkpoint. Arrays are saved from the host without any device
layout: a checkpoint of eight GPUs opens on one CPU. Only the first of several
processes reads and writes them, so that hosts need no common file system.

Which epoch is the best says the history in the meta of the latest checkpoint.
`best` has it, that of the checkpoint before, and for a moment one of an epoch
that is in no history yet; see `histories`.

A digest shows whether the arrays that are read are those that were written:
Orbax keeps none of them, and bits do flip on disks and in transfers.
"""

import contextlib
import functools
import os
import pathlib
import re
import shutil
import sys

from absl import logging
from flax import serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from mtnet_jax.storage import files
from mtnet_jax.storage import histories
from mtnet_jax.storage import step_folders
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors

FORMAT = 2
# The first one had no digest.
_READABLE = (1, 2)


class _DamagedError(errors.InputError):
  """A checkpoint is not what was saved."""


class Checkpoints:
  """The checkpoints of one stage below one directory.

  Args:
    directory: named as the stage.
    identity: `identity.Identity` of the run that they belong to; None where
      they are no run's.
  """

  def __init__(self, directory, identity=None):
    files.check_spelling(directory)
    self._directory = pathlib.Path(directory).absolute()
    self._identity = identity
    self._latest = self._manager('latest', keep=2)
    # Which of these are deleted, the histories say.
    self._best = self._manager('best', keep=None)

  def _manager(self, name, *, keep):
    directory = self._directory / name
    # Orbax makes no folder where not all processes take part.
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

  def save_latest(self, step, state, meta):
    """Saves a tree of host arrays and a JSON dict under a step number.

    Then it deletes the best checkpoints that neither its history nor that of
    the one before it calls the best.
    """
    state = serialization.to_state_dict(state)
    _save(self._latest, step, state, self._with_identity(meta))
    self._delete_discarded()

  def save_best(self, step, variables, meta):
    """Saves {'params', 'batch_stats'} of host arrays as the best so far.

    It is the best once `save_latest` was given a history that says so.
    """
    meta = self._with_identity(meta)
    # Of a history that was discarded; Orbax would save no earlier step.
    self._delete_best(lambda other: other > step)
    _save(self._best, step, variables, meta)

  def _delete_discarded(self):
    folders = step_folders.found(self._latest.directory).values()
    found = [histories.read(folder) for folder in folders]
    wanted = {histories.best_step(x) for x in found if x is not None} - {None}
    # Where one is missing, what is there may still be of use.
    there = wanted and wanted <= set(self._best.all_steps())
    if there and None not in found:
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

  def load_latest(self, like):
    """The newest state, in the structure of `like`, and its meta; or None.

    With `like=None` it comes as plain dicts. A damaged checkpoint is moved
    aside, with a warning, and the one before it is used.

    Raises:
      errors.InputError: there is none that is not damaged, or another version
        or another run wrote it.
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
        f'{damaged}, and so is every one before it: delete {self._directory}'
        ' to train the stage again.'
      )
    return None

  def _put_aside(self, step, error):
    if self._identity is not None:
      self._identity.check()
    aside = self._directory / 'damaged' / str(step)
    print(
      f'warning: {errors.one_line(error)}: it is in {aside} now.',
      file=sys.stderr,
    )
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(self._directory / 'latest' / str(step), aside)
    self._latest.reload()

  def check_best(self, history):
    """Checks that a history's best checkpoint is there, or may come again.

    Raises:
      errors.InputError: it is gone.
    """
    step = histories.best_step(history)
    # Earlier versions deleted it as soon as a newer one was saved. A process
    # that was killed then comes to that epoch again.
    if step is not None and max(self._best.all_steps(), default=-1) < step:
      raise histories.missing(self._directory, step)

  def load_best(self, history=None):
    """{'params', 'batch_stats'} of the best epoch, and its meta; or None.

    Args:
      history: a dict per epoch; by default that of the latest checkpoint.

    Raises:
      errors.InputError: it is missing or damaged, or another version or another
        run wrote it.
    """
    folder = histories.best_folder(self._directory, history)
    if folder is None:
      return None
    best = _load_best(self._best, folder, self._directory)
    self._check_identity(best[1])
    return best


def load_best(directory):
  """`Checkpoints.load_best` of a directory in which nothing may be written."""
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
    # A run that was killed between its two saves saves the same step again,
    # with the same values; one that was stopped at the end of an epoch, with
    # the row of that epoch.
    if step in manager.all_steps():
      if _has_meta(manager, step, meta):
        return
      _save_again(manager, step, tree, meta)
    else:
      _save_new(manager, step, tree, meta)
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f'{manager.directory}/{step} cannot be written: {_reason(error)}. The'
      ' checkpoint before it stays, and the same command goes on from there.'
    ) from error


def _has_meta(manager, step, meta):
  try:
    return _restore_meta(manager, step) == meta
  # What is damaged is saved again.
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
  with _quiet():
    manager.save(step, args=args)


@contextlib.contextmanager
def _quiet():
  """Hides the errors that Orbax's threads print: they are raised as well."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  shown = sys.unraisablehook
  sys.unraisablehook = functools.partial(_show_unless_late, shown)
  try:
    yield
    # After an error the hook stays: threads of other arrays are still writing.
    sys.unraisablehook = shown
  finally:
    logging.set_verbosity(verbosity)


def _show_unless_late(shown, unraisable):
  """Hides errors of writes to a loop that another write's error has closed."""
  error = unraisable.exc_value
  if not (isinstance(error, RuntimeError) and 'loop is closed' in str(error)):
    shown(unraisable)


def _reason(error):
  """The operating system's message in an error that Orbax raised."""
  # TensorStore appends what it knows, [key='value'], in no order.
  message = re.match(r"(.*?) \[\w+='", str(error), re.DOTALL)
  if message is None or 'os_error_code' not in str(error):
    return _first_line(error)
  return message[1].rpartition(': ')[2].strip()


def _restore(manager, step):
  """The tree and the meta that were saved under a step.

  Raises:
    _DamagedError: they are not what was saved.
    errors.InputError: another version wrote them.
  """
  try:
    # The meta comes first: another version may write arrays in another way.
    meta = _restore_meta(manager, step)
    found = meta.get('format')
    if found in _READABLE:
      state = manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
      ).state
      damaged = found >= 2 and tensors.digest(state) != meta['sha256']
  # Damage can be anywhere, so any exception may be raised.
  except Exception as error:
    raise _DamagedError(
      f'{manager.directory}/{step} is damaged ({_first_line(error)})'
    ) from error
  if found not in _READABLE:
    raise errors.InputError(
      f'{manager.directory}/{step} has checkpoint format {str(found)[:20]},'
      f' this version reads {FORMAT}: use the version of mtnet_jax that'
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


def _first_line(error):
  return next(iter(str(error).splitlines()), type(error).__name__)[:200]
