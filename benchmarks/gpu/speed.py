"""Part speed: times our networks and their peers on the card.

The contestants of a group are built in parallel, each in its own process,
because compilation takes a minute and time is short. Nothing is built while
they take turns. The most informative groups come first; a group is skipped if
too little time remains. Our times are also compared with the card's own limits
(`benchmarks.gpu.floors`).
"""

import dataclasses
import os
import statistics

from absl import flags

from benchmarks import timing
from benchmarks import turns
from benchmarks.gpu import cases as cases_lib
from benchmarks.gpu import floors as floors_lib

_COLUMNS = {
  'net': ('net', ''),
  'mode': ('', ''),
  'batch': ('batch', 'd'),
  'contestant': ('', ''),
  'ms': ('ms', '.2f'),
  'images_s': ('images/s', '.0f'),
  'times_ours': ('times ours', '.2f'),
  'build_s': ('build, s', '.0f'),
  'peak_gib': ('peak GiB', '.1f'),
  'share_of_copy': ('of copy', '.0%'),
  'share_of_product': ('of product', '.0%'),
}


class _Group:
  """Contestants that are built in parallel; a context manager that closes them.

  Args:
    visit: the `visit.Visit`.
    sizes: the `cases.Sizes`.
    late: set of names of peers that are skipped. Peers whose build takes too
      long are added to it.
  """

  def __init__(self, visit, sizes, late):
    self._visit = visit
    self._sizes = sizes
    self._late = late
    self._contestants = {}
    self._remaining_at_start_s = visit.remaining_s

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for key in list(self._contestants):
      self.drop(key)

  def add(self, case, name, build, *arguments, **options):
    """Starts to build a contestant; `case` is None for the card's floors."""
    self._contestants[case, name] = turns.Contestant(
      build, *arguments, **options
    )

  def add_all(self, case, **options):
    """Starts to build ours and its peers in bfloat16."""
    size = self._sizes.size
    for name in ('ours', *self._sizes.peers):
      if name == 'torch':
        self._add_unless_late(case, name, size, dtype='bfloat16')
      else:
        fields = self._sizes.fields.get(case.net)
        self._add_unless_late(
          case, name, size, dtype='bfloat16', fields=fields, **options
        )

  def _add_unless_late(self, case, name, size, **options):
    if name not in self._late:
      self.add(case, name, getattr(cases_lib, name), case, size, **options)

  def wait(self, reserve_s):
    """Waits for all builds, and drops those that are late.

    The straightforward port may be late earlier than the others: when a quarter
    remains of the time that remained when the group began.

    Args:
      reserve_s: seconds of the visit that must remain.
    """
    keys = sorted(
      self._contestants, key=lambda key: key[1] == 'straightforward'
    )
    for key in keys:
      until = reserve_s
      if key[1] == 'straightforward':
        until = max(reserve_s, self._remaining_at_start_s / 4)
      timeout = max(self._visit.remaining_s - until, 0)
      if self.ask(key, 'ready', timeout) is False:
        self.fail(key, f'not built {until:.0f} s before the end of the visit')
        if key[1] in self._sizes.peers:
          self._late.add(key[1])

  def names(self, case):
    """Returns the names of a case's contestants that did not fail."""
    return [name for which, name in self._contestants if which == case]

  def build_s(self, case, name):
    """Returns the seconds of a contestant's build."""
    return self._contestants[case, name].build_s

  def ask(self, key, method, *arguments, timeout=None):
    """Calls a method of a contestant.

    Args:
      key: (case, name) of the contestant.
      method: name of the method.
      *arguments: its arguments.
      timeout: seconds to wait, at most the rest of the visit.

    Returns:
      The result; None if the contestant failed, which is recorded.
    """
    if key not in self._contestants:
      return None
    if method != 'ready':
      timeout = min(timeout or 1e6, max(self._visit.remaining_s - 2, 1))
      arguments = (*arguments, timeout)
    try:
      return getattr(self._contestants[key], method)(*arguments)
    except (RuntimeError, TimeoutError) as error:
      self.fail(key, str(error))
    return None

  def fail(self, key, error):
    """Records that a contestant failed, and stops it."""
    case, name = key
    lines = error.strip().splitlines() or ['']
    self._visit.record(
      'speed',
      **(dataclasses.asdict(case) if case else {}),
      contestant=name,
      failed=lines[-1][:500],
      error=error[-3000:],
    )
    self.drop(key)

  def drop(self, key):
    """Stops a contestant and frees its memory."""
    self._contestants.pop(key).close(kill=True)

  def take_turns(self, case):
    """Times a case; returns contestant name -> median seconds of a call."""
    sizes = self._sizes
    calls = {}
    for name in self.names(case):
      self.ask((case, name), 'run', 3)
      seconds = self.ask((case, name), 'run', 2)
      if seconds:
        num_calls = int(sizes.round_s / (seconds / 2))
        calls[name] = min(max(num_calls, 1), sizes.calls)
    elapsed_s = {name: [] for name in calls}
    for round_number in range(sizes.rounds):
      if round_number and self._visit.remaining_s < 10:
        break
      for name, times in calls.items():
        if seconds := self.ask((case, name), 'run', times):
          elapsed_s[name].append(seconds / times)
    return {
      name: statistics.median(seconds)
      for name, seconds in elapsed_s.items()
      if seconds
    }


def rows_of(case, seconds, *, build_s, figures, floors):
  """Returns a row per contestant.

  Args:
    case: the `cases.Case`.
    seconds: contestant name -> seconds of a call.
    build_s: contestant name -> seconds of its build.
    figures: contestant name -> what its method `figures()` returned.
    floors: figures of `floors.Floors`; may be empty.

  Returns:
    A list of dicts. `times_ours` above 1 is slower than ours. `share_of_copy`
    and `share_of_product` are the least times for the program's memory traffic
    and for its products on this card, as shares of its time; only programs
    compiled by JAX have them.
  """
  rows = []
  for name, call_s in seconds.items():
    figure = figures.get(name) or {}
    row = {
      **dataclasses.asdict(case),
      'contestant': name,
      'ms': 1e3 * call_s,
      'images_s': case.batch / call_s,
      'times_ours': call_s / seconds['ours'] if 'ours' in seconds else None,
      'build_s': build_s.get(name),
      'peak_gib': _over(figure.get('peak_bytes'), 2**30),
      'held_gib': _over(figure.get('bytes_held'), 2**30),
      'gb': _over(figure.get('bytes'), 1e9),
      'tflop': _over(figure.get('flops'), 1e12),
      'lower_s': figure.get('lower_s'),
      'compile_s': figure.get('compile_s'),
    }
    for share, work, floor in (
      ('share_of_copy', 'gb', 'copy_gb_s'),
      ('share_of_product', 'tflop', 'product_tflop_s'),
    ):
      row[share] = _over(_over(row[work], floors.get(floor)), call_s)
    for key in ('uncompiled', 'uncounted', 'loops_counted_once'):
      if figure.get(key):
        row[key] = figure[key]
    rows.append(row)
  return rows


def _over(value, unit):
  return None if value is None or not unit else value / unit


def _time(visit, group, case, floors):
  """Times a case, records its rows, and stops its contestants."""
  seconds = group.take_turns(case)
  build_s = {name: group.build_s(case, name) for name in group.names(case)}
  figures = {
    name: group.ask((case, name), 'figures', timeout=20)
    for name in group.names(case)
  }
  rows = rows_of(case, seconds, build_s=build_s, figures=figures, floors=floors)
  for row in rows:
    visit.record('speed', **row)
  for name in group.names(case):
    group.drop((case, name))
  return rows


def _measure_floors(visit, group):
  floors = group.ask((None, 'floors'), 'figures', timeout=30) or {}
  visit.record('speed', **floors)
  if floors:
    group.drop((None, 'floors'))
  return floors


def _record_profile(visit, group, case):
  profile = group.ask((case, 'profile'), 'figures', timeout=60)
  if profile is None:
    return
  group.drop((case, 'profile'))
  for row in profile['kinds']:
    visit.record(
      'speed',
      **dataclasses.asdict(case),
      profile_step_ms=profile['step_ms'],
      **row,
    )


def _chosen(sizes, *, nets, peers):
  """Returns sizes with only some of the networks and peers."""
  groups = (
    tuple(case for case in group if case.net in nets) for group in sizes.groups
  )
  return dataclasses.replace(
    sizes,
    groups=tuple(group for group in groups if group),
    peers=tuple(name for name in sizes.peers if name in peers),
  )


def run(visit, config):
  """Runs the part, as far as time allows.

  Args:
    visit: the `visit.Visit`.
    config: its `matmul_precision` is the precision of our float32 products.
  """
  # The contestants share the card's memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  sizes = cases_lib.TINY if visit.tiny else cases_lib.CARD
  sizes = _chosen(sizes, nets=flags.FLAGS.nets, peers=flags.FLAGS.peers)
  precision = config.matmul_precision
  rows, floors, late = [], {}, set()
  with _Group(visit, sizes, late) as profiles:
    for number, cases in enumerate(sizes.groups):
      reserve_s = sizes.reserve_s if not number else sizes.reserve_s / 2
      if number and visit.remaining_s < 2 * reserve_s:
        visit.record('speed', left_out=[str(case) for case in cases])
        continue
      with _Group(visit, sizes, late) as group:
        if not number:
          profiles.add(None, 'floors', floors_lib.Floors, **sizes.floors)
        for case in cases:
          group.add_all(case, precision=precision)
          if not number:
            profiles.add(
              case,
              'profile',
              cases_lib.profile,
              case,
              sizes.size,
              out=str(visit.out),
              dtype='bfloat16',
              precision=precision,
              fields=sizes.fields.get(case.net),
            )
        if number == 1:
          # Traces are read while the second group is built.
          for case in sizes.groups[0]:
            _record_profile(visit, profiles, case)
        group.wait(reserve_s)
        if not number:
          profiles.wait(reserve_s)
        with visit.quiet():
          if not number:
            floors = _measure_floors(visit, profiles)
          for case in cases:
            rows += _time(visit, group, case, floors)
          if not number:
            for case in cases:
              profiles.ask((case, 'profile'), 'run', 1, timeout=30)
    # The traces are not read yet if no second group was built.
    for case in sizes.groups[0]:
      _record_profile(visit, profiles, case)
  print(timing.table(rows, _COLUMNS))
