"""Provides what all commands share: the parser and common flags."""

import argparse

from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc import paths


def parser(command: str, description: str) -> argparse.ArgumentParser:
  """Creates the parser of a command's flags.

  Args:
    command: name of the module below `tfds_lidc`.
    description: the module's docstring, which --help shows unchanged.
  """
  return argparse.ArgumentParser(
    prog=f'python -m tfds_lidc.{command}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def path(text: str) -> str:
  """Expands `~`; the `type` of flags that name a file or folder."""
  try:
    return paths.expand(text)
  except errors.InputError as e:
    # argparse hides the message of a ValueError.
    raise argparse.ArgumentTypeError(str(e)) from e


def add_data_dir(flags: argparse.ArgumentParser, use: str = '') -> None:
  """Adds --data_dir; `use` continues its help."""
  flags.add_argument(
    '--data_dir',
    type=path,
    help=f'where TFDS keeps its datasets{use} (default: $TFDS_DATA_DIR, or '
    '~/tensorflow_datasets if that is not set)',
  )


def add_workers(flags: argparse.ArgumentParser) -> None:
  """Adds --workers."""
  flags.add_argument(
    '--workers',
    type=int,
    default=parallel.all_cores(),
    help='number of processes (default: all cores, %(default)s)',
  )
