"""Writes docs/results.md from finished runs or from their saved numbers.

    python -m benchmarks.results --runs=runs    reads the runs first
    python -m benchmarks.results                uses docs/results/*.csv only

The first command also draws docs/results/examples.png with the networks of the
runs. It adds the finished points of the sweeps to those in the files, so that
runs of several days and machines can make one page. The page lists unfinished
points as missing. The commands that make the runs are on the page and in
`sources`.
"""

import datetime
import platform

from absl import app
from absl import flags

from benchmarks.results import analysis
from benchmarks.results import examples
from benchmarks.results import gather
from benchmarks.results import page
from benchmarks.results import sources
from mtnet_jax.system import errors

_RUNS = flags.DEFINE_string(
  'runs', '', "Folder with the sweeps' directories; '' uses the saved numbers."
)
_HARDWARE = flags.DEFINE_string(
  'hardware',
  platform.processor() or platform.machine(),
  'Hardware of the runs.',
)
_DATE = flags.DEFINE_string(
  'date', datetime.date.today().isoformat(), 'Date of the runs.'
)
_BUSY = flags.DEFINE_bool(
  'busy',
  False,
  'Other work shared the cores with the new runs: the page leaves out their'
  ' times.',
)
_DOCS = flags.DEFINE_string(
  'docs', str(sources.ROOT / 'docs'), 'Folder with results.md and results/.'
)


def _write():
  folder = f'{_DOCS.value}/results'
  if _RUNS.value:
    gather.gather(
      _RUNS.value,
      folder,
      hardware=_HARDWARE.value,
      date=_DATE.value,
      busy=_BUSY.value,
    )
    records, _ = gather.read(folder)
    # The networks of earlier runs may no longer exist.
    if gather.has_finished(_RUNS.value, analysis.REFERENCE):
      mtnet = records[sources.TABLES.name][analysis.REFERENCE]
      examples.write(mtnet, _RUNS.value, folder)
  page.write(_DOCS.value)
  print(f'{_DOCS.value}/results.md')


def main(_):
  """Runs the command."""
  errors.exit_on_input_error(_write)


if __name__ == '__main__':
  app.run(main)
