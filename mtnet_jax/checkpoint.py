"""Checkpoints of one stage: where to go on, and the best epoch.

    DIR/latest/<step>/{state,meta}    everything that training needs to go on
    DIR/best/<step>/{state,meta}      params and batch_stats of the best epoch

Orbax writes under a temporary name and renames, so a killed process leaves
the previous checkpoint. Arrays are saved from the host without any device
layout: a checkpoint of eight GPUs opens on one CPU. Of several processes the
first has them to itself, so that hosts need no common file system.
"""

import pathlib

from flax import serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from mtnet_jax import errors

FORMAT = 1


class Checkpoints:
  """The checkpoints of one stage below one directory."""

  def __init__(self, directory):
    self._directory = pathlib.Path(directory).absolute()
    self._latest = self._manager('latest', keep=2)
    self._best = self._manager('best', keep=1)

  def _manager(self, name, *, keep):
    directory = self._directory / name
    # Orbax makes no folder where not all processes take part.
    directory.mkdir(parents=True, exist_ok=True)
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
    """Saves a tree of host arrays and a JSON dict under a step number."""
    _save(self._latest, step, serialization.to_state_dict(state), meta)

  def save_best(self, step, variables, meta):
    """Saves {'params', 'batch_stats'} of host arrays as the best so far."""
    _save(self._best, step, variables, meta)

  def load_latest(self, like):
    """The newest state, in the structure of `like`, and its meta; or None.

    With `like=None` it comes as plain dicts.
    """
    if self._latest.latest_step() is None:
      return None
    tree, meta = _restore(self._latest)
    return serialization.from_state_dict(like, tree), meta

  def load_best(self):
    """{'params', 'batch_stats'} of the best epoch, and its meta; or None."""
    return None if self._best.latest_step() is None else _restore(self._best)


def load_best(directory):
  """`Checkpoints.load_best` of a directory in which nothing may be written."""
  directory = pathlib.Path(directory).absolute() / 'best'
  if not directory.exists():
    return None
  options = ocp.CheckpointManagerOptions(
    create=False, enable_async_checkpointing=False
  )
  manager = ocp.CheckpointManager(directory, options=options)
  return None if manager.latest_step() is None else _restore(manager)


def _save(manager, step, tree, meta):
  # A run killed between its two saves comes past the same step again, with
  # the same values.
  if step in manager.all_steps():
    return
  manager.save(
    step,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(_on_host(tree)),
      meta=ocp.args.JsonSave({'format': FORMAT, **meta}),
    ),
  )


def _on_host(tree):
  if isinstance(tree, dict):
    return {key: _on_host(value) for key, value in tree.items()}
  return np.asarray(tree)


def _restore(manager):
  step = manager.latest_step()
  try:
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()
      ),
    )
  except (OSError, ValueError, KeyError) as error:
    raise errors.InputError(
      f'{manager.directory}/{step} is damaged'
      f' ({str(error).splitlines()[0][:200]}): delete that folder to go on'
      ' from the checkpoint before it, if there is one.'
    ) from error
  found = restored.meta.get('format')
  if found != FORMAT:
    raise errors.InputError(
      f'{manager.directory}/{step} has checkpoint format {found}, this version'
      f' reads {FORMAT}: use the version of mtnet_jax that wrote it.'
    )
  return restored.state, restored.meta
