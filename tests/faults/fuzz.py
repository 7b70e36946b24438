"""Fuzzer: gives damaged files to every reader of files from strangers.

    python tests/faults/fuzz.py --inputs=100000 --seed=0
    python tests/faults/fuzz.py --only=dicom --inputs=1000

Each input must be read or refused by a clear message. Failures are: any other
exception, a crash of the process, more than ten seconds (twice, as the machine
may be slow), more than two GiB, a file written elsewhere, or code that runs.
Failing inputs are kept in --out with a description. The exit code is 1 if any
input failed, and 0 otherwise.

An input depends only on the seed, the target and its number.
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

MAX_SECONDS = 10
MAX_BYTES = 2 << 30
# A worker that does not react to the alarm is killed after this time.
_GRACE_SECONDS = 10
# Libraries leak memory, so a worker is replaced after this number of inputs.
_MAX_INPUTS_OF_WORKER = 20_000


class Result(NamedTuple):
  """The outcome of an input: 'accepted', 'refused' or 'failed', and why."""

  outcome: str
  detail: str = ''


class _TooSlow(BaseException):
  """The time is over; not an Exception, which a reader might catch."""


class _Escaped(BaseException):
  """A reader ran a program, or wrote a file elsewhere."""


def case_of(name: str, corpus: list, seed: int, number: int) -> dict:
  """Returns the input of a number, which is the same on every machine."""
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
  """Writes a case into a folder and reads it."""
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
      # The machine may have been slow; if it is the reader, it is slow again.
      with _guarded(folder):
        read(folder)
  except refusals as error:
    return _judge(error)
  except (_TooSlow, _Escaped, Exception):
    return Result('failed', traceback.format_exc(limit=-12))
  return Result('accepted')


def _judge(error):
  """Returns 'failed' for an unclear message, or one for lack of memory."""
  text, cause = str(error), error
  while cause:
    if isinstance(cause, MemoryError) or 'MemoryError' in str(cause):
      return Result('failed', f'refused by lack of memory only: {text[:500]}')
    cause = cause.__cause__ or cause.__context__
  if not text.strip() or len(text) > 2000:
    return Result(
      'failed', f'a message of {len(text)} characters: {text[:500]}'
    )
  return Result('refused', text)


@contextlib.contextmanager
def _guarded(folder):
  """Raises if the body takes too long, runs a program or writes elsewhere."""

  def too_slow(*_):
    raise _TooSlow

  before = signal.signal(signal.SIGALRM, too_slow)
  signal.alarm(MAX_SECONDS)
  _watched.append(str(folder))
  try:
    yield
  finally:
    _watched.clear()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


_watched = []
# Scripts that may be run: readers of HDF5, compressed images and volumes.
_SCRIPTS = ([hdf5.__file__], [decoder.__file__], [image_probe.__file__])
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _watch(event, args):
  """Audit hook; it cannot be removed, so it is inactive outside `_guarded`."""
  if not _watched:
    return
  if event == 'subprocess.Popen' and args[1][2:3] in _SCRIPTS:
    return
  if event in ('os.system', 'subprocess.Popen', 'socket.connect'):
    raise _Escaped(event, args)
  if event == 'open' and isinstance(args[0], str) and args[2] & _WRITES:
    path = os.path.realpath(args[0])
    if not path.startswith((os.path.realpath(_watched[0]), '/dev/null')):
      if not path.endswith('.pyc') and '__pycache__' not in path:
        raise _Escaped(event, path)


def _work(name, seed, first, last, connection):
  """Runs inputs of a target in a worker process, and sends their results."""
  # One core is enough; other programs may need the rest.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  warnings.simplefilter('ignore')
  # C libraries print many messages about damaged files.
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
  corpus = targets.TARGETS[name].corpus()
  with _scratch() as folder:
    # Intact cases must be read. This also imports what readers import lazily.
    for case in corpus:
      result = attempt(name, case, folder / 'intact')
      if result.outcome != 'accepted':
        connection.send((-1, result))
        return
      shutil.rmtree(folder / 'intact')
    sys.addaudithook(_watch)
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
    max_bytes = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    for number in range(first, last):
      case = case_of(name, corpus, seed, number)
      connection.send((number, None))
      result = attempt(name, case, folder / 'case')
      shutil.rmtree(folder / 'case', ignore_errors=True)
      connection.send((number, result))


@contextlib.contextmanager
def _scratch():
  """Makes a temporary folder, in memory if possible."""
  memory = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
  with tempfile.TemporaryDirectory(prefix='fuzz-', dir=memory) as folder:
    yield pathlib.Path(folder)


def run(name, *, inputs, seed, progress=iter):
  """Yields (number, `Result`) of every input of a target."""
  context = multiprocessing.get_context('spawn')
  next_input = 0
  while next_input < inputs:
    ours, theirs = context.Pipe(duplex=False)
    last = min(inputs, next_input + _MAX_INPUTS_OF_WORKER)
    worker = context.Process(
      target=_work, args=(name, seed, next_input, last, theirs), daemon=True
    )
    worker.start()
    theirs.close()
    started = None  # the number of the last input that was started
    try:
      while next_input < last:
        # The first message comes after imports and writing the corpus.
        timeout = 300 if started is None else 2 * MAX_SECONDS + _GRACE_SECONDS
        if not ours.poll(timeout):
          worker.kill()
          yield next_input, Result('failed', 'hangs and ignores the alarm')
          next_input += 1
          break
        number, result = ours.recv()
        if number < 0:
          raise RuntimeError(f'{name}: an intact file is refused: {result}')
        started = number
        if result is not None:
          yield number, result
          next_input = number + 1
    except EOFError:
      worker.join()
      if started is None:
        raise RuntimeError(f'{name}: the worker cannot start') from None
      detail = f'crashes the process, exit code {worker.exitcode}'
      yield next_input, Result('failed', detail)
      next_input += 1
    finally:
      ours.close()
      worker.join(MAX_SECONDS)
      worker.kill()


def keep(out, name, seed, number, corpus, detail):
  """Writes a failing input and a description of what happened."""
  folder = out / f'{name}-{number}'
  write(case_of(name, corpus, seed, number), folder / 'case')
  (folder / 'what.txt').write_text(detail + '\n', encoding='utf-8')


def shares(names, inputs):
  """Returns the number of inputs of each target, rounded up."""
  total = sum(targets.TARGETS[name].share for name in names)
  return {
    name: -int(-inputs * targets.TARGETS[name].share // total) for name in names
  }


def fuzz(names, *, inputs, seed, out=None, quiet=False):
  """Runs targets.

  Args:
    names: names of targets.
    inputs: total number of inputs.
    seed: seed of the inputs.
    out: folder for failing inputs, if any.
    quiet: whether to print nothing.

  Returns:
    Name -> {'accepted': n, 'refused': n, 'failed': n}, and descriptions of
    failures.
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
  """Returns counts as a table of text."""
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
