"""Gives every reader of strangers' files damaged ones, and says what happens.

    python tests/faults/fuzz.py --inputs=100000 --seed=0
    python tests/faults/fuzz.py --only=dicom --inputs=1000

Each input must be read, or be refused by one clear line: an exception of
another kind, a death of the process, ten seconds (twice, for the machine may
have been slow), two GiB, a file written elsewhere or code that is run is a
failure. Failing inputs are kept in --out, with what happened. Exit code: 0, or
1 where anything failed.

Inputs follow from the seed, the target and their number alone.
"""

import argparse
import contextlib
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from typing import NamedTuple
import warnings

_ROOT = pathlib.Path(__file__).resolve().parents[2]
if __name__ in ('__main__', '__mp_main__'):
  sys.path[:0] = [str(_ROOT), str(_ROOT / 'tests')]

from faults import target  # noqa: E402
from faults import targets  # noqa: E402
import tqdm  # noqa: E402

from mtnet_jax.ct import image_probe  # noqa: E402
from mtnet_jax.weights import hdf5  # noqa: E402
from tfds_lidc.ct import decoder  # noqa: E402

SECONDS = 10
BYTES = 2 << 30
_GRACE = 10  # seconds until a worker that answers no alarm is killed
# A worker is replaced after so many inputs, lest libraries' leaks add up.
_LIFE = 20_000


class Result(NamedTuple):
  """What became of an input: 'accepted', 'refused' or 'failed', and why."""

  outcome: str
  detail: str = ''


class _TooSlow(BaseException):
  """Not an Exception: no reader may take it for damage."""


class _Escaped(BaseException):
  """Something was run, or written elsewhere."""


def case_of(name: str, corpus: list, seed: int, number: int) -> dict:
  """The input of a number, the same on every machine."""
  rng = random.Random(f'{seed}/{name}/{number}')
  return targets.TARGETS[name].damage(
    rng, rng.choice(corpus), rng.choice(corpus)
  )


def write(case: dict, folder: pathlib.Path):
  """Writes the files of a case."""
  for path, data in case.items():
    path = folder / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def attempt(name: str, case: dict, folder: pathlib.Path) -> Result:
  """Writes a case and has it read."""
  from mtnet_jax.system import errors
  from tfds_lidc import errors as lidc_errors

  write(case, folder)
  refusals = (errors.InputError, lidc_errors.InputError, target.Refused)
  read = targets.TARGETS[name].read
  try:
    try:
      with _guarded(folder):
        read(folder)
    except _TooSlow:
      # The machine may have been; a reader at fault is slow again.
      with _guarded(folder):
        read(folder)
  except refusals as error:
    return _judge(error)
  except (_TooSlow, _Escaped, Exception):
    return Result('failed', traceback.format_exc(limit=-12))
  return Result('accepted')


def _judge(error):
  """A refusal must be a line that says something, and must have come early."""
  text, cause = str(error), error
  while cause:
    if isinstance(cause, MemoryError) or 'MemoryError' in str(cause):
      return Result('failed', f'refused by lack of memory only: {text[:500]}')
    cause = cause.__cause__ or cause.__context__
  if not text.strip() or len(text) > 2000:
    return Result('failed', f'a message of {len(text)} letters: {text[:500]}')
  return Result('refused', text)


@contextlib.contextmanager
def _guarded(folder):
  """Raises inside when it takes too long, runs code or writes elsewhere."""

  def too_slow(*_):
    raise _TooSlow

  before = signal.signal(signal.SIGALRM, too_slow)
  signal.alarm(SECONDS)
  _watched.append(str(folder))
  try:
    yield
  finally:
    _watched.clear()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


_watched = []
# Scripts that read HDF5, compressed images and volumes of one file.
_READERS = ([hdf5.__file__], [decoder.__file__], [image_probe.__file__])
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _watch(event, args):
  """Audit hook; a process cannot lose it again, so it sleeps outside."""
  if not _watched:
    return
  if event == 'subprocess.Popen' and args[1][2:3] in _READERS:
    return
  if event in ('os.system', 'subprocess.Popen', 'socket.connect'):
    raise _Escaped(event, args)
  if event == 'open' and isinstance(args[0], str) and args[2] & _WRITES:
    path = os.path.realpath(args[0])
    if not path.startswith((os.path.realpath(_watched[0]), '/dev/null')):
      if not path.endswith('.pyc') and '__pycache__' not in path:
        raise _Escaped(event, path)


def _work(name, seed, first, last, connection):
  """Runs inputs of a target in a process of its own, and tells of each."""
  # One process, one core: others work on this machine.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  warnings.simplefilter('ignore')
  # What C libraries say of damage is no answer, and there is a lot of it.
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
  corpus = targets.TARGETS[name].corpus()
  with _scratch() as folder:
    for case in corpus:  # loads what is loaded once
      found = attempt(name, case, folder / 'sound')
      if found.outcome != 'accepted':
        connection.send((-1, found))
        return
      shutil.rmtree(folder / 'sound')
    sys.addaudithook(_watch)
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
    most = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in range(first, last):
      case = case_of(name, corpus, seed, number)
      connection.send((number, None))
      found = attempt(name, case, folder / 'case')
      shutil.rmtree(folder / 'case', ignore_errors=True)
      connection.send((number, found))


@contextlib.contextmanager
def _scratch():
  """A folder in memory where there is one."""
  memory = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
  with tempfile.TemporaryDirectory(prefix='fuzz-', dir=memory) as folder:
    yield pathlib.Path(folder)


def run(name, *, inputs, seed, progress=iter):
  """Yields (number, `Result`) of every input of a target."""
  context = multiprocessing.get_context('spawn')
  next_input = 0
  while next_input < inputs:
    ours, theirs = context.Pipe(duplex=False)
    last = min(inputs, next_input + _LIFE)
    worker = context.Process(
      target=_work, args=(name, seed, next_input, last, theirs), daemon=True
    )
    worker.start()
    theirs.close()
    begun = None
    try:
      while next_input < last:
        # The first answer waits for imports and for the corpus.
        patience = 300 if begun is None else 2 * SECONDS + _GRACE
        if not ours.poll(patience):
          worker.kill()
          yield next_input, Result('failed', 'hangs, and answers no alarm')
          next_input += 1
          break
        number, result = ours.recv()
        if number < 0:
          raise RuntimeError(f'{name}: a sound file is refused: {result}')
        begun = number
        if result is not None:
          yield number, result
          next_input = number + 1
    except EOFError:
      worker.join()
      if begun is None:
        raise RuntimeError(f'{name}: the worker cannot start') from None
      detail = f'kills the process, exit code {worker.exitcode}'
      yield next_input, Result('failed', detail)
      next_input += 1
    finally:
      ours.close()
      worker.join(SECONDS)
      worker.kill()


def keep(out, name, seed, number, corpus, detail):
  """Keeps a failing input, and what happened."""
  folder = out / f'{name}-{number}'
  write(case_of(name, corpus, seed, number), folder / 'case')
  (folder / 'what.txt').write_text(detail + '\n', encoding='utf-8')


def shares(names, inputs):
  """How many of the inputs each target gets; at least so many in all."""
  total = sum(targets.TARGETS[name].share for name in names)
  return {
    name: -int(-inputs * targets.TARGETS[name].share // total) for name in names
  }


def fuzz(names, *, inputs, seed, out=None, quiet=False):
  """Runs targets.

  Returns:
    Name -> {'accepted': n, 'refused': n, 'failed': n}, and the details of what
    failed.
  """
  counts, details = {}, []
  for name, share in shares(names, inputs).items():
    counts[name] = {'accepted': 0, 'refused': 0, 'failed': 0}
    corpus = None
    bar = tqdm.tqdm(total=share, desc=name, unit='input', disable=quiet)
    with bar:
      for number, result in run(name, inputs=share, seed=seed):
        counts[name][result.outcome] += 1
        bar.update()
        if result.outcome != 'failed':
          continue
        bar.set_postfix(failed=counts[name]['failed'])
        details.append(f'{name} {number}: {result.detail}')
        if out:
          corpus = corpus or targets.TARGETS[name].corpus()
          keep(out, name, seed, number, corpus, result.detail)
    if not quiet:
      tqdm.tqdm.write(table({name: counts[name]}).splitlines()[1])
  return counts, details


def table(counts):
  """Counts as text."""
  lines = [
    f'{"target":<14}{"inputs":>9}{"accepted":>10}{"refused":>9}{"failures":>10}'
  ]
  total = {
    key: sum(c[key] for c in counts.values())
    for key in ('accepted', 'refused', 'failed')
  }
  for name, count in {**counts, 'all': total}.items():
    lines.append(
      f'{name:<14}{sum(count.values()):>9}{count["accepted"]:>10}'
      f'{count["refused"]:>9}{count["failed"]:>10}'
    )
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--inputs', type=int, default=100_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--only', action='append', choices=sorted(targets.TARGETS)
  )
  parser.add_argument(
    '--out', type=pathlib.Path, default=pathlib.Path('fuzz-failures')
  )
  args = parser.parse_args()
  counts, details = fuzz(
    args.only or list(targets.TARGETS),
    inputs=args.inputs,
    seed=args.seed,
    out=args.out,
  )
  print(table(counts))
  if details:
    print(f'Failing inputs are kept in {args.out}.')
  return int(bool(details))


if __name__ == '__main__':
  sys.exit(main())
