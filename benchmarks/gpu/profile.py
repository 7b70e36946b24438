"""Profiles our training step on the card, kernel by kernel.

The profiler's trace has the duration of each kernel and the operation of the
program that it belongs to. The text of the program tells what this operation
computes and how many bytes it moves.
"""

import collections
import dataclasses
import gzip
import json
import os
import pathlib
import re
import tempfile
import time

from benchmarks import hlo
from benchmarks.gpu import kinds

_STEPS = 3
_LONGEST = 40
_UNMATCHED = 'unmatched'
# Files that are copied back from the machine with the card must be small.
_MAX_BYTES = 15 * 2**20


@dataclasses.dataclass(frozen=True)
class Event:
  """A kernel that ran.

  Attributes:
    name: name of the kernel on the card.
    op: its operation in the program; '' if unknown.
    seconds: duration.
  """

  name: str
  op: str
  seconds: float


def events_of(planes):
  """Returns all `Event`s of a trace.

  A GPU's plane has a line for each stream, on which every kernel appears once.
  The line 'XLA Ops', which is derived from the streams, is only read if there
  are no streams. Without a GPU, the events are the operations on the CPU's
  threads.

  Args:
    planes: `planes` of a `jax.profiler.ProfileData`.
  """
  planes = list(planes)
  events = []
  for plane in planes:
    if not plane.name.startswith('/device:GPU'):
      continue
    lines = list(plane.lines)
    streams = [line for line in lines if line.name.startswith('Stream')]
    for line in streams or [line for line in lines if line.name == 'XLA Ops']:
      events += map(_event, line.events)
  if events:
    return events
  for plane in planes:
    if plane.name == '/host:CPU':
      for line in plane.lines:
        events += [x for x in map(_event, line.events) if x.op]
  return events


def _event(event):
  named = {}
  for name, value in event.stats:
    named.setdefault(name, value)
  op = named.get('hlo_op')
  if not op:
    # Some traces have the operation only within a longer text.
    text = ' '.join(value for value in named.values() if isinstance(value, str))
    match = re.search(r'\bhlo_op[=:]([\w./-]+)', text)
    op = match[1] if match else ''
  # The name of an operation in a loop is preceded by the loop's name.
  return Event(event.name, str(op).split('/')[-1], event.duration_ns / 1e9)


def _plain(name):
  """Returns a name of an operation in the form of kernel names."""
  return re.sub(r'[^\w]', '_', name)


def summarise(events, kernels, *, steps):
  """Adds up events by kind of kernel.

  Args:
    events: `Event`s of all steps.
    kernels: `hlo.Kernel`s of the program.
    steps: number of steps in the trace.

  Returns:
    A dict. Times, bytes and counts are those of one step. If an operation runs
    as several kernels on the card, its bytes count once.
      kinds: a row per kind, sorted by time; the last row is their sum.
      longest: the operations that took longest.
      unmatched: event name -> ms, for events that belong to no operation.
      unseen: operations without an event.
  """
  by_name = {kernel.name: kernel for kernel in kernels}
  by_plain = {_plain(kernel.name): kernel for kernel in kernels}
  groups = collections.defaultdict(list)
  unmatched = collections.defaultdict(float)
  for event in events:
    kernel = (
      by_name.get(event.op)
      or by_plain.get(_plain(event.op))
      or by_plain.get(_plain(event.name))
    )
    groups[kernel].append(event)
    if kernel is None:
      unmatched[event.name] += 1e3 * event.seconds / steps
  rows = [
    _row(kernel, its_events, steps=steps)
    for kernel, its_events in groups.items()
    if kernel
  ]
  rows.sort(key=lambda row: -row['ms'])
  unmatched_row = {
    'kind': _UNMATCHED,
    'launches': len(groups[None]) / steps,
    'ms': sum(unmatched.values()),
    'bytes': 0,
    'flops': 0,
  }
  seen = {row['op'] for row in rows}
  return {
    'kinds': _add_up([*rows, unmatched_row] if unmatched else rows),
    'longest': rows[:_LONGEST],
    'unmatched': dict(sorted(unmatched.items(), key=lambda item: -item[1])),
    'unseen': [kernel.name for kernel in kernels if kernel.name not in seen],
  }


def _row(kernel, events, *, steps):
  names = collections.defaultdict(float)
  for event in events:
    names[event.name] += event.seconds
  seconds = sum(names.values()) / steps
  moved = kernel.times * kernel.bytes
  return {
    'name': max(names, key=names.get),
    'op': kernel.name,
    'kind': kinds.kind_of(kernel),
    'source': kernel.source,
    'launches': len(events) / steps,
    'ms': 1e3 * seconds,
    'bytes': moved,
    'flops': kernel.times * kernel.flops,
    'gb_s': moved / seconds / 1e9 if seconds else None,
  }


def _add_up(rows):
  groups = collections.defaultdict(list)
  for row in rows:
    groups[row['kind']].append(row)
  total = sum(row['ms'] for row in rows)

  def row_of(kind, its_rows):
    ms, moved = (sum(row[key] for row in its_rows) for key in ('ms', 'bytes'))
    return {
      'kind': kind,
      'launches': sum(row['launches'] for row in its_rows),
      'ms': ms,
      'share': ms / total if total else None,
      'gb': moved / 1e9,
      'gb_s': moved / 1e6 / ms if ms else None,
      'tflop': sum(row['flops'] for row in its_rows) / 1e12,
    }

  sums = [row_of(kind, its_rows) for kind, its_rows in groups.items()]
  sums.sort(key=lambda row: -row['ms'])
  return [*sums, row_of('all', rows)]


class Profile:
  """A profile of our training step; a contestant of `turns`.

  A call traces a few steps. `figures` reads the trace, and writes
  `profile_<net>.json` and the text of the program, `hlo_<net>.txt.gz`.

  Args:
    net_name: one of `problem.NETS`.
    problem: the `problem.Problem`.
    out: folder for the files.
    **options: options of `jax_contestant.Contestant`.
  """

  def __init__(self, net_name, problem, *, out, **options):
    # Without command buffers, the trace has every kernel by itself. XLA reads
    # this flag when the backend starts, which happens later.
    os.environ['XLA_FLAGS'] = ' '.join(
      (os.environ.get('XLA_FLAGS', ''), '--xla_gpu_enable_command_buffer=')
    ).strip()
    from benchmarks import jax_contestant

    self._step = jax_contestant.Contestant(
      net_name, problem, mode='step', **options
    )
    self._net_name = net_name
    self._out = pathlib.Path(out)
    self._folder = tempfile.TemporaryDirectory()
    self._step_s = None

  def __call__(self):
    """Times steps without a trace, and then traces as many."""
    import jax

    jax.block_until_ready(self._step())
    start = time.perf_counter()
    for _ in range(_STEPS):
      state = self._step()
    jax.block_until_ready(state)
    self._step_s = (time.perf_counter() - start) / _STEPS
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(self._folder.name, profiler_options=options):
      for _ in range(_STEPS):
        state = self._step()
      jax.block_until_ready(state)

  def figures(self):
    """Returns `kinds` of `summarise`, and step_ms, measured without a trace."""
    text = self._step.compiled.as_text()
    self._keep(text)
    try:
      kernels, _, _ = hlo.readable_kernels(text)
    except Exception as error:
      # The times of the kernels are useful even without the program.
      print(f'The program of {self._net_name} cannot be read: {error}')
      kernels = []
    found = {
      'net': self._net_name,
      'step_ms': 1e3 * self._step_s,
      **summarise(self._events(), kernels, steps=_STEPS),
    }
    path = self._out / f'profile_{self._net_name}.json'
    path.write_text(json.dumps(found, indent=1) + '\n')
    return {key: found[key] for key in ('step_ms', 'kinds')}

  def _events(self):
    import jax

    events = []
    for path in pathlib.Path(self._folder.name).rglob('*.xplane.pb'):
      events += events_of(jax.profiler.ProfileData.from_file(str(path)).planes)
    return events

  def _keep(self, text):
    packed = gzip.compress(text.encode())
    if len(packed) < _MAX_BYTES:
      path = self._out / f'hlo_{self._net_name}.txt.gz'
      path.write_bytes(packed)
