"""Runs commands of the project in subprocesses, as a user does."""

import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

# Networks with fewer layers than the test variant's, which compile faster. How
# runs are interrupted and resumed does not depend on the number of layers.
_FEW_LAYERS = {'middle_blocks': 0, 'stem_widths': (8,), 'tail_widths': (16,)}
SMALL = {
  'seg_net': {'entry_widths': (8, 16), **_FEW_LAYERS},
  'class_net': {'entry_widths': (8, 16), **_FEW_LAYERS},
}


def environment(**more):
  return {**os.environ, 'PYTHONPATH': str(ROOT), **more}


def module(name, *arguments):
  """Returns the command `python -m NAME ...`."""
  return [sys.executable, '-m', name, *map(str, arguments)]


def test_size_job(workdir, data_dir, *flags):
  """Returns the command of a run at test size."""
  return module(
    'mtnet_jax.main',
    f'--config={ROOT}/configs/mtnet.py:test',
    f'--workdir={workdir}',
    f'--config.dataset.data_dir={data_dir}',
    *flags,
  )


test_size_job.__test__ = False


def small_job(workdir, data_dir, *flags):
  """Returns the command of a run at test size, with the networks of `SMALL`."""
  return test_size_job(
    workdir,
    data_dir,
    *(
      f'--config.{net}.{field}={value}'
      for net, fields in SMALL.items()
      for field, value in fields.items()
    ),
    *flags,
  )


def start_on_two(jobs, **env):
  """Starts two commands as the processes of one run; captures their output."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  return [
    subprocess.Popen(
      [
        *job,
        f'--coordinator=127.0.0.1:{port}',
        '--num_processes=2',
        f'--process_id={process}',
      ],
      cwd=ROOT,
      env=environment(**env),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process, job in enumerate(jobs)
  ]


def finish_two(started, *, seconds=900):
  """Waits for the processes of `start_on_two`; returns `CompletedProcess`es."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    outputs = pool.map(lambda x: x.communicate(timeout=seconds), started)
    return [
      subprocess.CompletedProcess(x.args, x.returncode, *output)
      for x, output in zip(started, outputs, strict=True)
    ]


def run(command, *, cwd=ROOT, **env):
  """Runs a command to its end and captures its output."""
  return subprocess.run(
    command,
    cwd=cwd,
    env=environment(**env),
    capture_output=True,
    text=True,
  )


def visit(part, out, *flags, **env):
  """Runs `python -m benchmarks.on_gpu --part=PART --out=OUT ...`.

  Returns:
    A `subprocess.CompletedProcess`, and the rows of results of that part.
  """
  done = run(
    module('benchmarks.on_gpu', f'--part={part}', f'--out={out}', *flags), **env
  )
  figures = pathlib.Path(out, f'{part}.json')
  assert figures.exists(), done.stderr[-3000:]
  return done, json.loads(figures.read_text())['rows']
