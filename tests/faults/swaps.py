"""Kills commands, or makes their disk full, while they replace a folder.

    python tests/faults/swaps.py --trials=50 --seed=0 --out=/tmp/swaps

Each command (build --overwrite, bundle, export, report, predict, sweep) runs in
a copy of a folder with an older result. At one of its changes to the disk it is
killed, or the change fails as on a full disk; or the disk is a tmpfs that is
really full, which needs permission to mount it. The first trials hit the moves
of whole folders; the others hit changes drawn from the seed. Afterwards the old
or the new result must be there and complete. The same command must then produce
the new result and leave no other files. OUT/swaps.csv lists every trial.
"""

import argparse
import csv
import hashlib
import itertools
import os
import pathlib
import random
import shutil
import subprocess
import sys
import traceback

import tqdm

_ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ == '__main__':
  sys.path[:0] = [str(_ROOT / 'tests'), str(_ROOT)]

from faults import interrupted  # noqa: E402
from faults import swap_cases  # noqa: E402

_MARK = 'of an older one.txt'
_LARGE = 'size=2g'


def in_child(function, log):
  """Runs a function in a child process; returns its exit code."""
  process = os.fork()
  if process:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
  code = 1
  try:
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    function()
    code = 0
  except SystemExit as error:
    code = error.code or 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def tree(folder):
  """Returns path -> digest of files that are not hidden; None for no folder."""
  if folder is None or not folder.is_dir():
    return None
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
    and not any(x.startswith('.') for x in path.relative_to(folder).parts)
  }


class Trials:
  """The trials of one command."""

  def __init__(self, name, case, shared, out):
    self._name, self._case, self._out = name, case, out
    self._template, self._folder = out / f'{name}-before', out / name
    self._log = out / f'{name}.log'
    self._template.mkdir()
    if self._in_child(lambda: case.prepare(shared, self._template)):
      raise SystemExit(f'{name} cannot be prepared: see {self._log}')
    if case.old and name != 'predict':
      (self._target(self._template) / _MARK).touch()
    self._old = tree(self._target(self._template))
    self._start()
    if self._command('kill', 0):
      raise SystemExit(f'{name} does not work: see {self._log}')
    self._new = tree(self._target(self._folder))
    self.calls = (out / f'{name}.calls').read_text().split()
    self._bytes = sum(
      path.stat().st_size for path in self._target(self._folder).rglob('*')
    )

  def _in_child(self, function):
    return in_child(function, self._log)

  def _target(self, folder):
    (found,) = [
      path
      for path in folder.glob(self._case.target)
      if not path.name.startswith('.')
    ] or [None]
    return found

  def _start(self, mounted=False):
    shutil.rmtree(self._folder, ignore_errors=True)
    self._folder.mkdir(exist_ok=True)
    if mounted:
      _mount(self._folder)
    shutil.copytree(self._template, self._folder, dirs_exist_ok=True)

  def _command(self, fault, at):
    def run():
      interruption = interrupted.Interruption(fault, at, self._folder)
      try:
        self._case.run(self._folder)
      finally:
        if at == 0:
          path = self._out / f'{self._name}.calls'
          path.write_text(' '.join(interruption.calls))

    return self._in_child(run)

  def _state(self):
    """Returns 'old', 'new' or the files that are there instead."""
    found = tree(self._target(self._folder))
    if found == self._old:
      return 'old'
    if found is not None and self._is_new(found):
      return 'new'
    return f'neither: {sorted(found) if found else found}'

  def _is_new(self, found):
    # One file may contain a time or an identifier; all files of `predict` do.
    num_equal = sum(found[x] == self._new[x] for x in found if x in self._new)
    return found.keys() == self._new.keys() and (
      self._name == 'predict' or num_equal >= len(found) - 1
    )

  def _mend(self):
    """Completes or reverts the replacement, as every use of the folder does."""
    from mtnet_jax.ct import out_folder
    from mtnet_jax.storage import together
    from tfds_lidc.folder_swap import swap
    from tfds_lidc.lidc_nodules import staging

    if self._name == 'build':
      staging.mend(self._folder, 'lidc_nodules')
    elif self._name == 'predict':
      together.mend(self._folder / self._case.target, out_folder.INDEX)
    else:
      swap.mend(self._folder / self._case.target)

  def trial(self, fault, at):
    """Runs one trial; returns a row of swaps.csv and the faults found."""
    mounted = fault == 'tmpfs'
    self._start(mounted)
    try:
      if mounted:
        # The disk is full after `at` times the number of bytes to be written.
        used = sum(x.stat().st_blocks * 512 for x in self._folder.rglob('*'))
        _mount(self._folder, f'remount,size={used + int(at * self._bytes)}')
        code = self._in_child(lambda: self._case.run(self._folder))
        _mount(self._folder, f'remount,{_LARGE}')
      else:
        code = self._command(fault, at)
      self._mend()
      state = self._state()
      code_after = self._in_child(lambda: self._case.run(self._folder))
      after = self._state()
      hidden = [str(x) for x in self._folder.rglob('.*.mtnet_jax-*')]
    finally:
      if mounted:
        subprocess.run(['umount', str(self._folder)], check=True)
    row = {
      'command': self._name,
      'fault': fault,
      'at': at,
      'call': '' if mounted else self.calls[at - 1],
      'exit_code': code,
      'left': state,
      'after': after,
    }
    # A command refuses to write a bundle or an export that already exists.
    refused = not self._case.old and state == 'new'
    good = state in ('old', 'new') and after == 'new' and not hidden
    good = good and (code_after == 0 or refused)
    return row, [] if good else [f'{row}, then {code_after} {hidden}']

  def moments(self, fault, rng):
    """Yields values of `at` for trials, without end."""
    if fault == 'tmpfs':
      while True:
        yield round(rng.uniform(0, 1.2), 3)
    moves = [i for i, call in enumerate(self.calls, 1) if call == 'rename']
    yield from dict.fromkeys(x for i in moves for x in (i, i + 1))
    while True:
      yield rng.randint(1, len(self.calls))


def _mount(folder, options=_LARGE):
  subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)], check=True
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--trials', type=int, default=50, help='number of trials of each fault'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', nargs='+', help='names of commands')
  parser.add_argument('--faults', nargs='+', default=['kill', 'full', 'tmpfs'])
  parser.add_argument(
    '--shared', type=pathlib.Path, help='folder `shared` of an earlier --out'
  )
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  out = args.out.absolute()
  out.mkdir(parents=True)
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(out / 'compiled'))
  shared = args.shared or out / 'shared'
  shared.mkdir(exist_ok=True)
  if not args.shared and in_child(
    lambda: swap_cases.share(shared), out / 'shared.log'
  ):
    raise SystemExit(f'see {out}/shared.log')
  # Imported here once for all children; this does not initialise a device.
  import mtnet_jax.report  # noqa: F401
  import tfds_lidc.build  # noqa: F401

  cases = swap_cases.cases(shared)
  commands = [
    Trials(name, cases[name], shared, out) for name in args.only or cases
  ]
  rng = random.Random(args.seed)
  rows, faults = [], []
  table = open(out / 'swaps.csv', 'w', newline='', buffering=1)
  for fault in args.faults:
    moments = [(x, x.moments(fault, rng)) for x in commands]
    for command, at in tqdm.tqdm(
      itertools.islice(itertools.cycle(moments), args.trials),
      total=args.trials,
      desc=fault,
      disable=None,
    ):
      row, found = command.trial(fault, next(at))
      rows.append(row)
      writer = csv.DictWriter(table, list(row))
      if len(rows) == 1:
        writer.writeheader()
      writer.writerow(row)
      faults += found
  table.close()
  print(*faults, sep='\n')
  for fault in args.faults:
    these = [row for row in rows if row['fault'] == fault]
    left = ', '.join(
      f'{sum(row["left"] == x for row in these)} {x}' for x in ('old', 'new')
    )
    print(f'{fault}: {len(these)} trials, left {left}')
  print(f'{len(faults)} faults.')
  sys.exit(bool(faults))


if __name__ == '__main__':
  main()
