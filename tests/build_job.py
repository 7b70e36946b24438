"""Builds by command, and what they hold."""

import main_job


def run(*args, command='build'):
  """Runs a command of `tfds_lidc`; returns (exit code, stdout, stderr)."""
  done = main_job.run(main_job.module(f'tfds_lidc.{command}', *args))
  return done.returncode, done.stdout, done.stderr


def records(builder):
  """All records of a build by nodule id."""
  return {
    record['nodule_id'].decode(): record
    for split in builder.info.splits
    for record in builder.as_data_source(split)
  }
