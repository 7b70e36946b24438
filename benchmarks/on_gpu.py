"""Checks and measures this project on a GPU within a few minutes.

    python -m benchmarks.on_gpu --part=check --seconds=180 --out=DIR
    python -m benchmarks.on_gpu --part=speed --seconds=300 --out=DIR
    python -m benchmarks.on_gpu --part=forms --seconds=120 --out=DIR
    python -m benchmarks.on_gpu --part=train --seconds=480 --out=DIR \
        --config.dataset.data_dir=DATA

The parts are independent; several `--part` run one after the other, as far as
time allows. Each figure is printed and written to `DIR/<part>.json` as soon as
it is known, together with the card, its driver and the versions of packages.
The command ends before its seconds are over. `--tiny` rehearses the parts at
sizes for a CPU.
"""

import importlib
import os
import sys
import traceback

from absl import app
from absl import flags
from ml_collections import config_flags

from benchmarks.gpu import visit as visit_lib

PARTS = ('check', 'speed', 'forms', 'train')

_PART = flags.DEFINE_multi_enum(
  'part', list(PARTS), PARTS, 'Part to run; repeat the flag.'
)
_SECONDS = flags.DEFINE_float(
  'seconds', 480, 'The command ends within this time.', lower_bound=1
)
_OUT = flags.DEFINE_string('out', 'runs/on_gpu', 'Folder for the results.')
_TINY = flags.DEFINE_bool('tiny', False, 'Rehearses at sizes for a CPU.')
flags.DEFINE_multi_enum(
  'nets',
  ['coarse', 'class', 'fine'],
  ('coarse', 'class', 'fine'),
  'Networks of part speed; repeat the flag.',
)
flags.DEFINE_multi_enum(
  'peers',
  ['torch', 'straightforward'],
  ('torch', 'straightforward', 'views', 'library_products'),
  'Contestants that part speed compares with ours: compiled PyTorch; the'
  ' straightforward port; ours without our Triton kernels; ours with products'
  ' by cuBLAS, which compiles faster; repeat the flag.',
)
_PAUSE = flags.DEFINE_multi_integer(
  'pause',
  [],
  'Id of a process group that is paused while something is timed, such as'
  ' another part in the background, started by setsid; repeat the flag.',
)
_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py', 'The config of part train.'
)


def main(_):
  """Runs the command."""
  # This process and its child processes share the memory of the card.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  visit = visit_lib.Visit(
    _OUT.value,
    seconds=_SECONDS.value,
    tiny=_TINY.value,
    pause=_PAUSE.value,
  )
  failed = []
  for part in _PART.value:
    try:
      importlib.import_module(f'benchmarks.gpu.{part}').run(
        visit, _CONFIG.value
      )
    except Exception as error:
      # Time on a GPU is short, so the other parts still run.
      traceback.print_exc()
      visit.record(part, failed=f'{type(error).__name__}: {error}'[:500])
      failed.append(part)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  app.run(main)
