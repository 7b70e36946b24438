"""What a GPU says of this project, in the few minutes that one can be had.

    python -m benchmarks.on_gpu --part=check --seconds=180 --out=DIR
    python -m benchmarks.on_gpu --part=speed --seconds=300 --out=DIR
    python -m benchmarks.on_gpu --part=forms --seconds=120 --out=DIR
    python -m benchmarks.on_gpu --part=train --seconds=480 --out=DIR \
        --config.dataset.data_dir=DATA

Parts are independent of each other; with several `--part` one runs after the
other, as long as there is time. Each figure is printed and written to
`DIR/<part>.json` as soon as it is there, beside card, driver and versions, and
the command ends before its seconds are over. `--tiny` rehearses all of it at
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
  'part', list(PARTS), PARTS, 'What is measured; repeat the flag.'
)
_SECONDS = flags.DEFINE_float(
  'seconds', 480, 'The command ends before these are over.', lower_bound=1
)
_OUT = flags.DEFINE_string('out', 'runs/on_gpu', 'Folder for the figures.')
_TINY = flags.DEFINE_bool('tiny', False, 'A rehearsal, at sizes for a CPU.')
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
  'Whom part speed compares with: compiled PyTorch; the straightforward port;'
  ' ours without kernels of our own; ours with products left to cuBLAS, which'
  ' compiles sooner; repeat the flag.',
)
_PAUSE = flags.DEFINE_multi_integer(
  'pause',
  [],
  'Process group that stands still while something is timed, such as of another'
  ' part in the background (setsid); repeat the flag.',
)
_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py', 'The config that part train trains.'
)


def main(_):
  # This process and those that it starts share the card's memory.
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
      # The visit is too short to end with the first part that fails.
      traceback.print_exc()
      visit.record(part, failed=f'{type(error).__name__}: {error}'[:500])
      failed.append(part)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  app.run(main)
