"""What the commands share: their flags, and how they set up their process."""

import argparse
import functools
import re
import sys

from absl import flags
from absl import logging
import tqdm

from mtnet_jax.system import host_memory
from mtnet_jax.system import stopping

# Arguments of `add_argument` for flags that several commands have.
DATA_DIR = {'help': 'where TFDS keeps datasets (default: as in the run)'}
NEW_FOLDER = {'required': True, 'help': 'folder to make'}
SYMMETRIES = {
  'action': 'store_true',
  'help': (
    'average over the eight rotations and reflections of each patch; it takes'
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
  sys.stdout.reconfigure(line_buffering=True)
  _hide_warnings()
  host_memory.keep(several_processes=several_processes)
  stopping.listen()
  # It imports JAX, which takes seconds: wrong flags are reported before.
  from mtnet_jax.system import compilation_cache

  compilation_cache.enable()


def config_flags_parser(holder, *, example):
  """A `flags_parser` for `absl.app.run`.

  Args:
    holder: of `config_flags.DEFINE_config_file`.
    example: of a value of --config, for the message where it is missing.

  Returns:
    argv -> arguments; what is wrong becomes one line and exit code 2.
  """

  def parse(argv):
    try:
      arguments = flags.FLAGS(argv)
      if holder.value is None:
        raise ValueError(f'--config is missing, such as {example}')
      # A file that did not load fails only when it is read.
      holder.value.lock()
      return arguments
    except (
      AttributeError,
      KeyError,
      OSError,
      TypeError,
      ValueError,
      flags.Error,
    ) as error:
      message = str(error)
      # ml_collections raises an AttributeError from the KeyError.
      if isinstance(error.__context__ or error, KeyError):
        key, *meant = re.findall(r'[\w.]+(?=\\?[\'"])', message)
        message = f"the config has no key '{key}'"
        if meant:
          message += f"; did you mean '{meant[0]}'?"
      # An error in a config file comes with its whole traceback.
      elif raised := re.findall(r'^\w+Error: (.*)', message, re.MULTILINE):
        message = raised[-1]
      message = ' '.join(message.split())
      print(f'error: {message} (--help explains)', file=sys.stderr)
      sys.exit(2)

  return parse


def progress_bar(description):
  """A function that shows a sequence's progress, with ETA."""
  return functools.partial(
    tqdm.tqdm, desc=description, unit='batch', leave=False
  )
