"""What the commands share: flags, and the set-up of their process."""

import argparse
from collections.abc import Callable
import functools
import io
import sys
from typing import Any

from absl import logging
import tqdm

from mtnet_jax.system import errors
from mtnet_jax.system import host_memory
from mtnet_jax.system import paths
from mtnet_jax.system import stopping


def path(text: str) -> str:
  """Expands `~`; the `type` of every flag that names a file or folder."""
  try:
    return paths.expand(text)
  except errors.InputError as error:
    # argparse hides the message of any other ValueError.
    raise argparse.ArgumentTypeError(str(error)) from error


# Arguments of `add_argument` for flags that several commands have.
DATA_DIR: dict[str, Any] = {
  'type': path,
  'help': 'where TFDS keeps datasets (default: as in the run)',
}
NEW_FOLDER: dict[str, Any] = {
  'required': True,
  'type': path,
  'help': 'the folder to create',
}
SYMMETRIES: dict[str, Any] = {
  'action': 'store_true',
  'help': (
    'average over the 8 flips and rotations of each patch, which takes'
    ' eight times as long'
  ),
}


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
  """Returns a parser of the flags of `python -m mtnet_jax.NAME`.

  Args:
    doc: the command's docstring, which --help shows unchanged.
    name: the command's name.
  """
  return argparse.ArgumentParser(
    prog=f'python -m mtnet_jax.{name}',
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def _hide_warnings():
  """Hides the warnings that libraries log, such as of a dataset not yet built.

  The commands check for such problems themselves, and say what to do.
  """
  logging.set_verbosity(logging.ERROR)


def prepare_evaluation() -> None:
  """Sets up the process of a command that runs networks on a dataset."""
  _hide_warnings()
  host_memory.keep()


def prepare_training(*, several_processes: bool = False) -> None:
  """Sets up the process of a command that trains, before JAX is used.

  Args:
    several_processes: as in `host_memory.keep`.
  """
  # Each line should appear as soon as it is printed, also in a file. Notebooks
  # have another kind of standard output.
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(line_buffering=True)
  _hide_warnings()
  host_memory.keep(several_processes=several_processes)
  stopping.listen()
  # This imports JAX, which takes seconds. Wrong flags are reported before.
  from mtnet_jax.system import compilation_cache

  compilation_cache.enable()


def progress_bar(description: str) -> Callable[..., tqdm.tqdm]:
  """Returns a function that shows a progress bar for a sequence of batches."""
  return functools.partial(
    tqdm.tqdm, desc=description, unit='batch', leave=False
  )
