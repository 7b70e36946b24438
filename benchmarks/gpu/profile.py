"""Where the time of our training step goes, kernel by kernel, on the card.

The profiler says how long each kernel ran and of which operation of the program
it is; the program says what that operation computes, and how much it moves.
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
# What comes back from the card's machine is small.
_MAX_BYTES = 15 * 2**20


@dataclasses.dataclass(frozen=True)
class Event:
  """A kernel that ran.

  Attributes:
    name: of the kernel, as the card has it.
    op: the operation of the program; '' where nothing says so.
    seconds: that it took.
  """

  name: str
  op: str
  seconds: float


def events_of(planes):
  """All `Event`s of a trace.

  A GPU's plane has a line per stream, on which every kernel is once; lines that
  are derived from these count only where there are none. Without a GPU it is
  what the CPU's threads say of operations.

  Args:
    planes: of `jax.profiler.ProfileData`.
  """
  planes = list(planes)
  found = []
  for plane in planes:
    if not plane.name.startswith('/device:GPU'):
      continue
    lines = list(plane.lines)
    streams = [line for line in lines if line.name.startswith('Stream')]
    for line in streams or [line for line in lines if line.name == 'XLA Ops']:
      found += map(_event, line.events)
  if found:
    return found
  for plane in planes:
    if plane.name == '/host:CPU':
      for line in plane.lines:
        found += [one for one in map(_event, line.events) if one.op]
  return found


def _event(event):
  named = {}
  for name, value in event.stats:
    named.setdefault(name, value)
  op = named.get('hlo_op')
  if not op:
    # What the program says around a kernel, where it is not taken apart.
    said = ' '.join(value for value in named.values() if isinstance(value, str))
    found = re.search(r'\bhlo_op[=:]([\w./-]+)', said)
    op = found[1] if found else ''
  # An operation of a loop comes with the loop's name.
  return Event(event.name, str(op).split('/')[-1], event.duration_ns / 1e9)


def _plain(name):
  """A name as kernels have it."""
  return re.sub(r'[^\w]', '_', name)


def summarise(events, kernels, *, steps):
  """Adds up events by kind of kernel.

  Args:
    events: `Event`s of all steps.
    kernels: `hlo.Kernel`s of the program.
    steps: how many ran.

  Returns:
    A dict of `kinds`, the longest first and all of them last; `longest`, the
    operations that took longest; `unmatched`, event name -> ms a step, of what
    belongs to no operation; and `unseen`, operations without an event. Times,
    bytes and counts are of one step; an operation that is several kernels on
    the card moves its bytes once.
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
    _row(kernel, some, steps=steps) for kernel, some in groups.items() if kernel
  ]
  rows.sort(key=lambda row: -row['ms'])
  lost = {
    'kind': _UNMATCHED,
    'launches': len(groups[None]) / steps,
    'ms': sum(unmatched.values()),
    'bytes': 0,
    'flops': 0,
  }
  seen = {row['op'] for row in rows}
  return {
    'kinds': _add_up([*rows, lost] if unmatched else rows),
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

  def row_of(kind, some):
    ms, moved = (sum(row[key] for row in some) for key in ('ms', 'bytes'))
    return {
      'kind': kind,
      'launches': sum(row['launches'] for row in some),
      'ms': ms,
      'share': ms / total if total else None,
      'gb': moved / 1e9,
      'gb_s': moved / 1e6 / ms if ms else None,
      'tflop': sum(row['flops'] for row in some) / 1e12,
    }

  found = [row_of(kind, some) for kind, some in groups.items()]
  found.sort(key=lambda row: -row['ms'])
  return [*found, row_of('all', rows)]


class Profile:
  """Our training step, and its profile; a contestant of `turns`.

  A call traces steps; `figures` reads the trace and writes
  `profile_<net>.json` and the program, `hlo_<net>.txt.gz`.

  Args:
    net_name: of `problem.NETS`.
    problem: `problem.Problem`.
    out: folder for the files.
    **options: of `jax_contestant.Contestant`.
  """

  def __init__(self, net_name, problem, *, out, **options):
    # Kernels that a GPU starts as one graph are not told apart. The flag is
    # read when JAX's backend starts, which is after this.
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
    """What `summarise` finds of `kinds`, and ms of a step without a trace."""
    text = self._step.compiled.as_text()
    self._keep(text)
    try:
      kernels, _, _ = hlo.readable_kernels(text)
    except Exception as error:
      # The longest kernels of the card are worth having without it.
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
