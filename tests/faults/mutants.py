"""Removes the guards of `guards.py` one by one; a test must fail each time.

    python tests/faults/mutants.py
    python tests/faults/mutants.py --only=dicom

Works on a copy of the repository, where all of these tests must pass first. The
exit code is 1 if the tests of a guard pass without it, and 0 otherwise.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import tqdm

_ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ == '__main__':
  sys.path[:0] = [str(_ROOT / 'tests')]

from faults import guard as guard_lib  # noqa: E402
from faults import guards  # noqa: E402

# Some guards keep a test from hanging.
_MAX_SECONDS = 300


def run_tests(tree: pathlib.Path, tests: str) -> str:
  """Runs tests; returns 'pass', 'fail', 'hang' or an unexpected exit code."""
  command = [sys.executable, '-m', 'pytest', '-q', '-x', '-m', '']
  process = subprocess.Popen(
    [*command, '-p', 'no:cacheprovider', *shlex.split(tests)],
    cwd=tree,
    env={**os.environ, 'PYTHONPATH': str(tree)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  try:
    code = process.wait(_MAX_SECONDS)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return 'hang'
  if code not in (0, 1):
    # A signal crashes pytest itself. Other codes mean that it found no test.
    return 'fail' if code < 0 else f'pytest ends with {code}'
  return 'fail' if code else 'pass'


def mutate(tree: pathlib.Path, guard: guard_lib.Guard) -> str:
  """Returns the result of a guard's tests without the guard."""
  path = tree / guard.file
  source = path.read_text(encoding='utf-8')
  path.write_text(
    source.replace(guard.text, guard.without, 1), encoding='utf-8'
  )
  try:
    return run_tests(tree, guard.tests)
  finally:
    path.write_text(source, encoding='utf-8')


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', default='', help='part of a file name')
  chosen = [g for g in guards.GUARDS if parser.parse_args().only in g.file]
  unnoticed = 0
  with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
    tree = pathlib.Path(folder, 'tree')
    ignored = shutil.ignore_patterns(
      '.git', '__pycache__', 'runs', '*.egg-info'
    )
    shutil.copytree(_ROOT, tree, ignore=ignored)
    for tests in tqdm.tqdm(sorted({g.tests for g in chosen}), unit='test'):
      # Otherwise a failure without the guard would prove nothing.
      found = run_tests(tree, tests)
      if found != 'pass':
        raise SystemExit(f'{tests}: {found}, although no guard is removed.')
    for guard in tqdm.tqdm(chosen, unit='guard'):
      found = mutate(tree, guard)
      unnoticed += found not in ('fail', 'hang')
      first = guard.text.strip().splitlines()[0]
      tqdm.tqdm.write(f'{found:<5} {guard.file}: {first}')
  print(f'Tests noticed {len(chosen) - unnoticed} of {len(chosen)} removals.')
  return int(bool(unnoticed))


if __name__ == '__main__':
  sys.exit(main())
