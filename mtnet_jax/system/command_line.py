"""What the commands share: their flags, and how they set up their process."""

import argparse
import functools
import io
import sys

from absl import logging
import tqdm

from mtnet_jax.system import errors
from mtnet_jax.system import host_memory
from mtnet_jax.system import paths
from mtnet_jax.system import stopping


def path(text):
  """`type` of a flag that names a file or folder: `~` is the home folder."""
  try:
    return paths.expand(text)
  except errors.InputError as error:
    # Of a ValueError, argparse hides the message.
    raise argparse.ArgumentTypeError(str(error)) from error


# Arguments of `add_argument` for flags that several commands have.
DATA_DIR = {
  'type': path,
  'help': 'where TFDS keeps datasets (default: as in the run)',
}
NEW_FOLDER = {'required': True, 'type': path, 'help': 'folder to make'}
SYMMETRIES = {
  'action': 'store_true',
  'help': (
    'average over the 8 flips and rotations of each patch; it takes'
    ' eight times as long'
  ),
}


def parser(doc, name):
  """A parser of the flags of `python -m mtnet_jax.NAME`.

  Args:
    doc: the command's docstring, which --help shows as it is.
    name: of the command.
  """
  return argparse.ArgumentParser(
    prog=f'python -m mtnet_jax.{name}',
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def _hide_warnings():
  """Hides what libraries warn of, such as a dataset that is not built yet.

  The commands check for such things themselves, and say what to do.
  """
  logging.set_verbosity(logging.ERROR)


def prepare_evaluation():
  """Sets up the process of a command that runs networks on a dataset."""
  _hide_warnings()
  host_memory.keep()


def prepare_training(*, several_processes=False):
  """Sets up the process of a command that trains, before JAX is used.

  Args:
    several_processes: as in `host_memory.keep`.
  """
  # A line appears when it is printed, also where the output goes to a file.
  if isinstance(sys.stdout, io.TextIOWrapper):  # A notebook has another.
    sys.stdout.reconfigure(line_buffering=True)
  _hide_warnings()
  host_memory.keep(several_processes=several_processes)
  stopping.listen()
  # It imports JAX, which takes seconds: wrong flags are reported before.
  from mtnet_jax.system import compilation_cache

  compilation_cache.enable()


def progress_bar(description):
  """A function that shows a sequence's progress, with ETA."""
  return functools.partial(
    tqdm.tqdm, desc=description, unit='batch', leave=False
  )
