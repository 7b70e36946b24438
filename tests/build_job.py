"""Runs commands of `tfds_lidc` and reads the datasets that they build."""

import main_job


def run(*args, command='build'):
  """Runs a command of `tfds_lidc`; returns (exit code, stdout, stderr)."""
  done = main_job.run(main_job.module(f'tfds_lidc.{command}', *args))
  return done.returncode, done.stdout, done.stderr


def records(builder):
  """Returns nodule id -> record, for all splits of a dataset."""
  return {
    record['nodule_id'].decode(): record
    for split in builder.info.splits
    for record in builder.as_data_source(split)
  }
