"""Writes docs/results.md, from finished runs or from the numbers they left.

    python -m benchmarks.results --runs=runs    from runs, which it reads first
    python -m benchmarks.results                from docs/results/*.csv

The first also draws docs/results/examples.png, with the runs' networks. It adds
the points that are finished to those of the files, so that runs of several days
and machines make one page; what none has finished is named as missing. The
commands that make the runs stand on the page, and in `sources`.
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

_RUNS = flags.DEFINE_string('runs', '', "Folder of the sweeps' directories.")
_HARDWARE = flags.DEFINE_string(
  'hardware', platform.processor() or platform.machine(), 'Of the runs.'
)
_DATE = flags.DEFINE_string(
  'date', datetime.date.today().isoformat(), 'When they ran.'
)
_BUSY = flags.DEFINE_bool(
  'busy',
  False,
  'Other work shared the cores with the runs that are new: how long they took'
  ' is left out of the page.',
)
_DOCS = flags.DEFINE_string(
  'docs', str(sources.ROOT / 'docs'), 'Folder of results.md and results/.'
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
    # Networks of another day's runs may be gone.
    if gather.has_finished(_RUNS.value, analysis.REFERENCE):
      mtnet = records[sources.TABLES.name][analysis.REFERENCE]
      examples.write(mtnet, _RUNS.value, folder)
  page.write(_DOCS.value)
  print(f'{_DOCS.value}/results.md')


def main(_):
  errors.exit_on_input_error(_write)


if __name__ == '__main__':
  app.run(main)
