"""Timing that can be compared: everything takes turns.

What else the machine does meets all contestants alike, and a ratio of medians
says more than the seconds of a day. Nothing is timed on zeros.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import time

import jax
import numpy as np
import tqdm

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'numpy')


def in_turn(functions, *, repeats, label=''):
  """Seconds of every call, all functions taking turns.

  Args:
    functions: name -> function without arguments. What it returns is waited
      for, where it is JAX's.
    repeats: timed calls of each; one more before them warms up.
    label: of the progress bar.

  Returns:
    name -> list of `repeats` seconds.
  """
  seconds = {name: [] for name in functions}
  rounds = tqdm.trange(repeats + 1, desc=label, leave=False, disable=None)
  for _ in rounds:
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - start)
  return {name: taken[1:] for name, taken in seconds.items()}


def medians(functions, *, repeats, label=''):
  """Median seconds of each function; see `in_turn`."""
  seconds = in_turn(functions, repeats=repeats, label=label)
  return {name: float(np.median(taken)) for name, taken in seconds.items()}


def environment():
  """What the figures hang on: date, hardware, versions."""
  device = jax.devices()[0]
  return {
    'date': datetime.date.today().isoformat(),
    'device': device.device_kind if device.platform != 'cpu' else _cpu(),
    'devices': jax.device_count(),
    'cores': len(os.sched_getaffinity(0)),
    'python': platform.python_version(),
    **{name: _version(name) for name in _PACKAGES},
  }


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _cpu():
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    for line in info.read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  return platform.processor() or platform.machine()


def describe(environment_):
  """One line of `environment`."""
  versions = ', '.join(
    f'{name} {environment_[name]}'
    for name in ('python', *_PACKAGES)
    if environment_[name]
  )
  return (
    f'{environment_["date"]}, {environment_["device"]},'
    f' {environment_["cores"]} cores, {versions}'
  )


def table(rows, columns):
  """Rows as a table in Markdown.

  Args:
    rows: dicts.
    columns: key -> (heading, format specification); absent or None is '-'.
  """
  lines = [
    '| ' + ' | '.join(heading for heading, _ in columns.values()) + ' |',
    '|' + '---|' * len(columns),
  ]
  for row in rows:
    cells = (
      '-' if row.get(key) is None else format(row[key], spec)
      for key, (_, spec) in columns.items()
    )
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def write_json(path, **results):
  """Writes results beside what they hang on."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    json.dumps({'environment': environment(), **results}, indent=2) + '\n'
  )
  print(f'Written: {path}')
