"""Times functions in turns, and writes tables and files of the results.

Functions take turns so that other load on the machine affects all of them
alike. Ratios of medians can then be compared between days; seconds cannot.
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
  """Times every call of functions that take turns.

  Args:
    functions: name -> function without arguments. The time includes the wait
      for JAX arrays that it returns.
    repeats: number of timed calls of each function, after one warm-up call.
    label: label of the progress bar.

  Returns:
    Name -> list of `repeats` seconds.
  """
  seconds = {name: [] for name in functions}
  rounds = tqdm.trange(repeats + 1, desc=label, leave=False, disable=None)
  for _ in rounds:
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - start)
  return {name: values[1:] for name, values in seconds.items()}


def medians(functions, *, repeats, label=''):
  """Returns name -> median seconds; the arguments are those of `in_turn`."""
  seconds = in_turn(functions, repeats=repeats, label=label)
  return {name: float(np.median(values)) for name, values in seconds.items()}


def environment():
  """Returns what the results depend on: date, hardware and versions."""
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
  """Returns one line of text for a dict of `environment`."""
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
  """Formats rows as a Markdown table.

  Args:
    rows: list of dicts.
    columns: key -> (heading, format specification). A value that is None or
      absent is shown as '-'.
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
  """Writes results together with the `environment`."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(
    json.dumps({'environment': environment(), **results}, indent=2) + '\n'
  )
  print(f'Written: {path}')
