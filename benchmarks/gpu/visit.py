"""One visit to a machine with a GPU: little time, and nothing to lose.

Every figure is printed and written as soon as it is there, so that whatever
ends the visit early leaves what was found so far.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from benchmarks import timing

_UNTIL_QUIET_S = 1.5
_QUERY = 'name,driver_version,memory.total,clocks.max.sm,clocks.max.mem'


class Visit:
  """Where figures go, and how much time is left for more.

  Args:
    out: folder for `<part>.json`.
    seconds: after which the visit must have ended.
    tiny: a rehearsal, at sizes for a CPU.
    pause: process groups that stand still while something is timed.

  Attributes:
    out: `pathlib.Path` of the folder.
    tiny: as given.
  """

  def __init__(self, out, *, seconds, tiny=False, pause=()):
    self.out = pathlib.Path(out)
    self.out.mkdir(parents=True, exist_ok=True)
    self.tiny = tiny
    self._started = time.monotonic()
    self._seconds = seconds
    self._pause = tuple(pause)
    self._found = {}

  @property
  def elapsed(self):
    """Seconds since the visit began."""
    return time.monotonic() - self._started

  @property
  def left(self):
    """Seconds until the visit must have ended."""
    return self._seconds - self.elapsed

  @contextlib.contextmanager
  def quiet(self):
    """Nothing else of the visit runs inside, on the card or beside it."""
    self._send(signal.SIGSTOP)
    try:
      if self._pause:
        # Until the card has done what it was given before.
        time.sleep(_UNTIL_QUIET_S)
      yield
    finally:
      self._send(signal.SIGCONT)

  def _send(self, number):
    for group in self._pause:
      # One that has ended is quiet, too.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)

  def record(self, part, **figures):
    """Prints a row of figures and appends it to `<part>.json`.

    Args:
      part: such as 'speed'.
      **figures: what JSON can hold.
    """
    figures = {'at_s': round(self.elapsed, 1), **figures}
    rows = self._found.setdefault(part, [])
    rows.append(figures)
    print(
      f'[{self.elapsed:5.0f} s] {part}: '
      + ', '.join(
        f'{name} {_text(value)}'
        for name, value in figures.items()
        if name != 'at_s'
      ),
      flush=True,
    )
    path = self.out / f'{part}.json'
    partial = path.with_suffix('.partial')
    partial.write_text(
      json.dumps(
        {'environment': environment(), 'tiny': self.tiny, 'rows': rows},
        indent=1,
      )
      + '\n'
    )
    os.replace(partial, path)


def _text(value):
  if isinstance(value, float):
    return f'{value:.4g}'
  if isinstance(value, (list, dict)) and len(str(value)) > 200:
    return f'({len(value)} entries)'
  return str(value)


_environment = {}


def environment():
  """`timing.environment`, with the card and its driver as it says them."""
  if not _environment:
    _environment.update(timing.environment(), card=_card())
  return _environment


def _card():
  """What the driver says of the card; None where there is none."""
  try:
    said = subprocess.run(
      ['nvidia-smi', f'--query-gpu={_QUERY}', '--format=csv,noheader'],
      capture_output=True,
      text=True,
      timeout=30,
      check=True,
    ).stdout
  except (OSError, subprocess.SubprocessError):
    return None
  return dict(zip(_QUERY.split(','), said.strip().split(', '), strict=False))
