"""Which epoch of a stage is the best: the one that its history calls so.

A checkpoint of the best epoch is saved before the one that has the epoch in its
history. A process that is killed between the two comes to the epoch again, and
on another machine, or with another version, to another result.
"""

from mtnet_jax.storage import files
from mtnet_jax.storage import step_folders
from mtnet_jax.system import errors


def best_step(history):
  """The last step of the best epoch; None where there is none.

  Args:
    history: a dict per epoch, with 'step' and 'best'.
  """
  return next((row['step'] for row in reversed(history) if row['best']), None)


def of_latest(directory):
  """The history of the newest step of a stage; None where there is none.

  Args:
    directory: of the stage's checkpoints.
  """
  folders = step_folders.found(directory / 'latest')
  return read(folders[max(folders)]) if folders else None


def read(folder):
  """The history that is kept with one step.

  Args:
    folder: of the step.

  Returns:
    As in `best_step`; None where there is none, or none that can be read.
  """
  try:
    history = files.read_json(folder / 'meta' / 'metadata')['history']
    rows = [(row['step'], row['best']) for row in history]
  # Whoever made the run may have written anything.
  except (errors.InputError, KeyError, TypeError):
    return None
  return history if all(isinstance(step, int) for step, _ in rows) else None


def best_folder(directory, history=None):
  """The folder of a stage's best step; None where there is none.

  Where no history tells, it is the newest one: a stage of no epochs has none,
  nor has one of which only `best` was copied.

  Args:
    directory: of the stage's checkpoints.
    history: as in `best_step`; by default that of the latest checkpoint.

  Raises:
    errors.InputError: it is missing.
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


def missing(directory, step):
  """The `errors.InputError` where a stage's best step is missing."""
  return errors.InputError(
    f'{directory}/best/{step} is missing, which the history of the stage calls'
    f' its best checkpoint: {way_out(directory)}'
  )


def way_out(directory):
  """What can be done about a best step that is of no use."""
  return (
    f'delete {directory} and give the training command again, which trains this'
    ' stage again; or take a copy.'
  )
