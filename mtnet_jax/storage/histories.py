"""Finds the best epoch of a stage, which its history names.

The checkpoint of a best epoch is saved before the latest checkpoint, whose
history lists that epoch. If a process is killed between the two, training
repeats the epoch, and on another machine or with another version the result may
differ. So only an epoch that a history lists counts.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from mtnet_jax.storage import files
from mtnet_jax.storage import step_folders
from mtnet_jax.system import errors


def best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
  """Returns the last step of the best epoch; None if there is none.

  Args:
    history: a dict per epoch, with 'step' and 'best'.
  """
  return next((row['step'] for row in reversed(history) if row['best']), None)


def of_latest(directory: pathlib.Path) -> list[dict[str, Any]] | None:
  """Returns the history of a stage's latest step; None if there is none.

  Args:
    directory: the stage's checkpoints.
  """
  folders = step_folders.found(directory / 'latest')
  return read(folders[max(folders)]) if folders else None


def read(folder: pathlib.Path) -> list[dict[str, Any]] | None:
  """Reads the history that is stored with one step.

  Args:
    folder: the step's folder.

  Returns:
    A history as in `best_step`; None if there is none or it cannot be read.
  """
  try:
    history = files.read_json(folder / 'meta' / 'metadata')['history']
    rows = [(row['step'], row['best']) for row in history]
  # The run may come from a stranger, so the file may hold anything.
  except (errors.InputError, KeyError, TypeError):
    return None
  return history if all(isinstance(step, int) for step, _ in rows) else None


def best_folder(
  directory: pathlib.Path, history: Sequence[Mapping[str, Any]] | None = None
) -> pathlib.Path | None:
  """Returns the folder of a stage's best step; None if there is none.

  Without a history it is the newest folder in `best`. That is so for a stage of
  no epochs, and if only `best` was copied.

  Args:
    directory: the stage's checkpoints.
    history: as in `best_step`; by default that of the latest checkpoint.

  Raises:
    errors.InputError: the folder that the history names is missing.
  """
  folders = step_folders.found(directory / 'best')
  if history is None:
    history = of_latest(directory)
  if history is None:
    return folders[max(folders)] if folders else None
  step = best_step(history)
  if step is None:
    return None
  if step not in folders:
    raise missing(directory, step)
  return folders[step]


def missing(directory: pathlib.Path, step: int) -> errors.InputError:
  """Returns the error for a best step that is missing."""
  return errors.InputError(
    f'{directory}/best/{step} is missing, but the history of the stage names it'
    f' as the best checkpoint: {way_out(directory)}'
  )


def way_out(directory: pathlib.Path) -> str:
  """Returns what a user can do if a best step is missing or damaged."""
  return (
    f'delete {directory} and run the training command again, which trains this'
    ' stage again; or restore a copy.'
  )
