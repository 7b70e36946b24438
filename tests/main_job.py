"""Runs commands of the project as a user does, in processes of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def environment(**more):
  return {**os.environ, 'PYTHONPATH': str(ROOT), **more}


def module(name, *arguments):
  """The command `python -m NAME ...`."""
  return [sys.executable, '-m', name, *map(str, arguments)]


def test_size_job(workdir, data_dir, *flags):
  """The main job at test size."""
  return module(
    'mtnet_jax.main',
    f'--config={ROOT}/configs/mtnet.py:test',
    f'--workdir={workdir}',
    f'--config.dataset.data_dir={data_dir}',
    *flags,
  )


test_size_job.__test__ = False


def run(command, **env):
  """Runs a command to its end; its output is captured."""
  return subprocess.run(
    command,
    cwd=ROOT,
    env=environment(**env),
    capture_output=True,
    text=True,
  )
