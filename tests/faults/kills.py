"""Kills a training run at random moments, resumes it and compares the results.

    python tests/faults/kills.py --kills=50 --seed=0 --out=/tmp/kills

One run of the test size is not interrupted. Other runs are killed (SIGKILL) and
started again. The moments are drawn from the seed: any time, while the dataset
is built, while a checkpoint is written, or while the report is written. In the
end, every run must have the dataset, checkpoints, metrics and records of the
uninterrupted run, bit for bit, and none of its processes may be left.
OUT/kills.csv lists every kill.
"""

import argparse
import contextlib
import csv
import functools
import pathlib
import random
import re
import subprocess
import sys
import time

import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import main_job  # noqa: E402

STAGES = ('coarse', 'class', 'fine')
# Moment -> (pattern of files that are waited for, maximum delay in seconds).
MOMENTS = {
  'at any time': (None, None),
  'building': ('data/**/.*.mtnet_jax-*', 4.0),
  'checkpoint': ('run/checkpoints/*/*/*tmp*', 0.05),
  'report': ('run/records.csv', 2.0),
}
_WEIGHTS = (4, 1, 3, 1)
# A run must be able to finish.
_MAX_PER_RUN = 8
_BEFORE_DATA = ('starting', 'building')
_FILES = ('metrics.json', 'records.csv')


def job(directory):
  """Returns the command of a run with data and results in `directory`."""
  return main_job.test_size_job(
    directory / 'run',
    directory / 'data',
    # Write a checkpoint after every step.
    '--config.checkpoint_minutes=0',
  )


def start(directory, environment):
  """Starts or resumes the run of a directory; returns its process."""
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / 'log', 'ab') as log:
    return subprocess.Popen(
      job(directory), env=environment, stdout=log, stderr=log
    )


def kill_at(moment, process, directory, rng, seconds):
  """Kills a process at a moment; returns False if it ended before.

  Args:
    moment: key of `MOMENTS`.
    process: result of `start`.
    directory: argument of `start`.
    rng: `random.Random`.
    seconds: duration of an uninterrupted run.
  """
  pattern, max_delay = MOMENTS[moment]
  if pattern is None:
    wait = rng.uniform(0, seconds / 4)
  else:
    # Skip a random number of checkpoints.
    skip = rng.randrange(8) if moment == 'checkpoint' else 0
    seen = found(directory, pattern)
    while skip >= 0 and process.poll() is None:
      time.sleep(0.002)
      new = found(directory, pattern) - seen
      seen |= new
      skip -= len(new)
    wait = rng.uniform(0, max_delay)
  try:
    process.wait(wait)
    return False
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
    return True


def found(directory, pattern):
  """Returns {(path, time of its last change)} of files that match a pattern."""
  paths = set()
  for path in directory.glob(pattern):
    # Temporary files may have been removed in the meantime.
    with contextlib.suppress(FileNotFoundError):
      paths.add((path, path.stat().st_mtime_ns))
  return paths


def reached(directory):
  """Returns the progress of a run in words."""
  run = directory / 'run'
  if (run / 'metrics.json').exists():
    return 'finished'
  if (run / 'records.csv').exists():
    return 'report'
  for stage in reversed(STAGES):
    steps = [
      int(path.name)
      for path in (run / 'checkpoints' / stage / 'latest').glob('*')
      if path.name.isdigit()
    ]
    if steps:
      return f'{stage} {max(steps)}'
  if (run / 'config.json').exists():
    return 'before the first step'
  if list((directory / 'data').glob('**/dataset_info.json')):
    return 'dataset built'
  return 'building' if (directory / 'data').exists() else 'starting'


def differences(left, right):
  """Yields the names of results that differ between two finished runs."""
  import numpy as np
  import run_files

  for name in _FILES:
    ours, theirs = ((x / 'run' / name).read_bytes() for x in (left, right))
    if ours != theirs:
      yield name
  if run_files.losses(left / 'run') != run_files.losses(right / 'run'):
    yield 'train_log.csv'
  for which, ours, theirs in run_files.pairs_of_checkpoints(
    left / 'run', right / 'run'
  ):
    if ours.keys() != theirs.keys() or not all(
      np.array_equal(ours[name], theirs[name]) for name in ours
    ):
      yield which
  names = [sorted(p.name for p in (x / 'run').iterdir()) for x in (left, right)]
  if names[0] != names[1]:
    yield 'the files of the run directory'
  if dataset(left) != dataset(right):
    yield 'dataset'


@functools.cache  # every run is compared with the same one
def dataset(directory):
  """Returns a hash of all records, as files of equal records may differ."""
  from mtnet_jax.data import lidc
  from mtnet_jax.data import nodules

  return nodules.fingerprint(
    {
      split: lidc.load_split(
        'lidc_nodules/phantom', split, data_dir=directory / 'data'
      )
      for split in lidc.SPLITS
    }
  )


def left_over(directory):
  """Returns command lines of processes that still use a run after 10 s."""
  until = time.monotonic() + 10
  while True:
    lines = [
      line
      for line in subprocess.run(
        ['ps', '-eo', 'args'], capture_output=True, text=True, check=True
      ).stdout.splitlines()
      if str(directory) in line
      and 'ps -eo' not in line
      and 'kills.py' not in line
    ]
    if not lines or time.monotonic() > until:
      return lines
    time.sleep(0.2)


def run_kills(*, kills, seed, out, environment):
  """Kills runs; returns the rows of kills.csv and descriptions of faults."""
  rng = random.Random(seed)
  undisturbed = out / 'undisturbed'
  started = time.monotonic()
  if start(undisturbed, environment).wait():
    raise SystemExit(f'the undisturbed run failed: {undisturbed}/log')
  seconds = time.monotonic() - started
  rows, faults = [], []
  bar = tqdm.tqdm(total=kills, unit='kill', disable=None)
  number = 0
  while len(rows) < kills:
    number += 1
    directory = out / f'run{number}'
    num_kills = 0
    while num_kills < _MAX_PER_RUN and len(rows) < kills:
      process = start(directory, environment)
      (moment,) = rng.choices(list(MOMENTS), _WEIGHTS)
      if moment == 'building' and reached(directory) not in _BEFORE_DATA:
        moment = 'at any time'
      began = time.monotonic()
      if not kill_at(moment, process, directory, rng, seconds):
        if process.returncode:
          faults.append(f'{directory}: exit code {process.returncode}')
        break
      num_kills += 1
      rows.append(
        {
          'run': number,
          'aimed_at': moment,
          'seconds': round(time.monotonic() - began, 2),
          'reached': reached(directory),
        }
      )
      bar.update()
      faults += [f'left over: {line}' for line in left_over(directory)]
    if start(directory, environment).wait():
      faults.append(f'{directory} did not end: see its log')
      continue
    faults += [
      f'{directory}: {what} differs'
      for what in differences(undisturbed, directory)
    ]
    bar.set_postfix(faults=len(faults))
  bar.close()
  return rows, faults


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  arguments = parser.parse_args()
  out = arguments.out.absolute()
  out.mkdir(parents=True)
  rows, faults = run_kills(
    kills=arguments.kills,
    seed=arguments.seed,
    out=out,
    environment=main_job.environment(
      JAX_COMPILATION_CACHE_DIR=str(out / 'compiled')
    ),
  )
  with open(out / 'kills.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  hit = {}
  for row in rows:
    where = re.sub(r' \d+$', '', row['reached'])
    hit[where] = hit.get(where, 0) + 1
  for where, count in hit.items():
    print(f'{count:3} killed: {where}')
  print(*faults, sep='\n')
  print(f'{len(rows)} kills in {rows[-1]["run"]} runs, {len(faults)} faults.')
  sys.exit(bool(faults))


if __name__ == '__main__':
  main()
