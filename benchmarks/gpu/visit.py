"""A visit to a machine with a GPU: records results and watches the time.

Every result is printed and written as soon as it is known, so that no result is
lost if the visit ends early.
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
  """Records the figures of a visit, and tells how much time remains.

  Args:
    out: folder for `<part>.json`.
    seconds: duration of the visit.
    tiny: whether this is a rehearsal, at sizes for a CPU.
    pause: ids of process groups that are paused while something is timed.

  Attributes:
    out: `pathlib.Path` of the folder.
    tiny: whether this is a rehearsal.
  """

  def __init__(self, out, *, seconds, tiny=False, pause=()):
    self.out = pathlib.Path(out)
    self.out.mkdir(parents=True, exist_ok=True)
    self.tiny = tiny
    self._started = time.monotonic()
    self._seconds = seconds
    self._pause = tuple(pause)
    self._rows = {}

  @property
  def elapsed_s(self):
    """Seconds since the visit began."""
    return time.monotonic() - self._started

  @property
  def remaining_s(self):
    """Seconds until the visit must end."""
    return self._seconds - self.elapsed_s

  @contextlib.contextmanager
  def quiet(self):
    """Pauses the process groups of `pause` within the context."""
    self._send(signal.SIGSTOP)
    try:
      if self._pause:
        # The card finishes the work that these processes dispatched.
        time.sleep(_UNTIL_QUIET_S)
      yield
    finally:
      self._send(signal.SIGCONT)

  def _send(self, number):
    for group in self._pause:
      # The group may have ended.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)

  def record(self, part, **figures):
    """Prints a row of figures and appends it to `<part>.json`.

    Args:
      part: name of the part, such as 'speed'.
      **figures: values that JSON can hold.
    """
    figures = {'at_s': round(self.elapsed_s, 1), **figures}
    rows = self._rows.setdefault(part, [])
    rows.append(figures)
    print(
      f'[{self.elapsed_s:5.0f} s] {part}: '
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
  """Returns `timing.environment` and what the driver reports about the card."""
  if not _environment:
    _environment.update(timing.environment(), card=_card())
  return _environment


def _card():
  """Returns what the driver reports about the card; None without a card."""
  try:
    output = subprocess.run(
      ['nvidia-smi', f'--query-gpu={_QUERY}', '--format=csv,noheader'],
      capture_output=True,
      text=True,
      timeout=30,
      check=True,
    ).stdout
  except (OSError, subprocess.SubprocessError):
    return None
  return dict(zip(_QUERY.split(','), output.strip().split(', '), strict=False))
