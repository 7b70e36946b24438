"""Writes the report of a finished run again.

    python -m mtnet_jax.report --workdir=runs/demo

Numbers come from its records.csv and metrics.json, which must agree; the
networks run for the nodules of the figure only. `--compare=DIR` (a finished
sweep, or a run of another strategy; as often as needed) fills the rows of the
paper's tables that other runs belong in, with the difference to this one:

    python -m mtnet_jax.sweep --config=configs/baselines.py:tables,demo
    python -m mtnet_jax.report --workdir=runs/demo --compare=runs/tables-demo

The variant, here demo, is the run's. The first sweep fills all rows; `variants`
of the same file adds rows, and table4 and table5 of configs/ablations.py fill
those of their table. Other sweeps have a report of their own.
"""

import pathlib

from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import comparisons
from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import records
from mtnet_jax.models import nets
from mtnet_jax.reports import commands
from mtnet_jax.reports import examples
from mtnet_jax.reports import page as page_lib
from mtnet_jax.storage import same_run
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import command_line
from mtnet_jax.system import errors

# How far a nodule's Dice may be from its record when the networks run on
# another machine: a pixel or two at the threshold may differ.
_DICE_TOLERANCE = 0.05


def write_again(workdir, *, compare=(), data_dir=None):
  """Replaces the report of a finished run.

  Args:
    workdir: the run directory.
    compare: directories of runs to compare with, see `comparisons.read`.
    data_dir: where TFDS keeps datasets; None for where the run found them.

  Returns:
    The path of the page.

  Raises:
    errors.InputError: the run is incomplete, damaged, of another version, mixed
      up, or its dataset is not there; it was moved or replaced meanwhile; or
      the report cannot be written.
  """
  check_still_there = same_run.remember(workdir)
  run = finished_run.read(workdir)
  compared = comparisons.read(compare, run)
  # Tables, figures and networks use values that nothing has looked at yet.
  with finished_run.damage(run.path):
    splits = _load_same_splits(run, data_dir)
    chosen = _examples(run, splits['test'])
    # Before a hidden folder is made there, and again before it is the report.
    check_still_there()
    page_lib.write(
      run.path / 'report',
      results={
        **run.results,
        'cohort': {name: nodules_lib.count(x) for name, x in splits.items()},
      },
      records=run.records,
      histories=run.histories,
      examples=chosen,
      comparisons=compared,
      commands=commands.for_run(run.config, run.path),
      check=check_still_there,
    )
  return run.path / 'report' / 'index.html'


def _load_same_splits(run, data_dir):
  dataset = run.config.dataset
  splits = lidc.load_splits(dataset, data_dir)
  if nodules_lib.fingerprint(splits) != dataset.fingerprint:
    raise errors.InputError(
      f'{dataset.name} is not the one that {run.path} was trained on: its'
      ' nodules differ. Give the other with --data_dir.'
    )
  return splits


def _examples(run, nodules):
  ids = [record['nodule_id'] for record in run.records]
  if ids != nodules.info['nodule_id'].tolist():
    raise errors.InputError(
      f'{run.path}/records.csv is mixed up: its nodules are not those of the'
      f' test split of {run.config.dataset.name}.'
    )
  _, values = examples.order_by(run.records)
  chosen = examples.choose(values)
  shown = nodules.take([index for _, index in chosen])
  variables = workdir_lib.load_variables(run.path, nets.names(run.config))
  outputs = outputs_lib.predict(run.config, variables, shown, progress=iter)
  for record, (_, index) in zip(
    records.make_records(shown, outputs), chosen, strict=True
  ):
    _check_record(run, record, run.records[index])
  return examples.collect(chosen, run.records, shown, outputs)


def _check_record(run, found, stored):
  for name in records.masks_of([stored]):
    key = f'{name}_dice'
    if abs(found.get(key, -1) - stored[key]) > _DICE_TOLERANCE:
      raise errors.InputError(
        f'{run.path} is mixed up: its networks draw {stored["nodule_id"]} with'
        f' a {name} Dice of {found.get(key)}, and records.csv says'
        f' {stored[key]}. Its files are not of one run; give the training'
        ' command again with another --workdir.'
      )


def main():
  parser = command_line.parser(__doc__, 'report')
  parser.add_argument(
    '--workdir',
    required=True,
    type=command_line.path,
    help='run directory of a finished training',
  )
  parser.add_argument(
    '--compare',
    action='append',
    default=[],
    metavar='DIR',
    type=command_line.path,
    help='a finished sweep or comparison run (may be given more than once)',
  )
  parser.add_argument('--data_dir', **command_line.DATA_DIR)
  args = parser.parse_args()
  command_line.prepare_evaluation()
  page = write_again(
    pathlib.Path(args.workdir), compare=args.compare, data_dir=args.data_dir
  )
  print(f'Report: {page}')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
