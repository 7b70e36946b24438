"""Builds by command, and what they hold."""

import subprocess
import sys


def run(*args):
  """Runs the command; returns (exit code, stdout, stderr)."""
  done = subprocess.run(
    [sys.executable, '-m', 'tfds_lidc.build', *map(str, args)],
    text=True,
    capture_output=True,
    check=False,
  )
  return done.returncode, done.stdout, done.stderr


def records(builder):
  """All records of a build by nodule id."""
  return {
    record['nodule_id'].decode(): record
    for split in builder.info.splits
    for record in builder.as_data_source(split)
  }
