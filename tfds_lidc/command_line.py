"""What the commands share: a parser that shows their docstring, and flags."""

import argparse

from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc import paths


def parser(command: str, description: str) -> argparse.ArgumentParser:
  """A parser of a command's flags.

  Args:
    command: the module, below `tfds_lidc`.
    description: its docstring, which --help shows as it is written.
  """
  return argparse.ArgumentParser(
    prog=f'python -m tfds_lidc.{command}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def path(text: str) -> str:
  """`type` of a flag that names a file or folder: `~` is the home folder."""
  try:
    return paths.expand(text)
  except errors.InputError as e:
    # Of a ValueError, argparse hides the message.
    raise argparse.ArgumentTypeError(str(e)) from e


def add_data_dir(flags: argparse.ArgumentParser, use: str = '') -> None:
  """Adds --data_dir; `use` continues its help."""
  flags.add_argument(
    '--data_dir',
    type=path,
    help=f'where TFDS keeps its datasets{use} (default: $TFDS_DATA_DIR, and '
    '~/tensorflow_datasets where that is not set)',
  )


def add_workers(flags: argparse.ArgumentParser) -> None:
  """Adds --workers."""
  flags.add_argument(
    '--workers',
    type=int,
    default=parallel.all_cores(),
    help='processes (default: all cores, %(default)s)',
  )
