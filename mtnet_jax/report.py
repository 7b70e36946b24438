"""Rewrites the report of a finished run, and compares it with other runs.

    python -m mtnet_jax.report --workdir=runs/demo

The results come from the run's records.csv and metrics.json, which must agree;
the networks only run on the nodules of the figure. `--compare=DIR` adds other
runs, and their difference to this run, to the paper's tables. DIR is a finished
sweep or a run of another strategy; the flag may be given several times:

    python -m mtnet_jax.sweep --config=configs/baselines.py:tables,demo
    python -m mtnet_jax.report --workdir=runs/demo --compare=runs/tables-demo

The sweep must have the variant of the run, here demo. The sweep `tables` fills
all rows, and `variants` of the same file adds rows. table4 and table5 of
configs/ablations.py only fill the rows of their table. Other sweeps have their
own reports.
"""

from collections.abc import Iterable
import os
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

# On another machine, a pixel or two near the threshold may change sides, so a
# nodule's Dice may differ from its record by this much.
_DICE_TOLERANCE = 0.05


def write_again(
  workdir: str | os.PathLike[str],
  *,
  compare: Iterable[str | os.PathLike[str]] = (),
  data_dir: str | None = None,
) -> pathlib.Path:
  """Replaces the report of a finished run.

  Args:
    workdir: the run directory.
    compare: directories of runs to compare with, see `comparisons.read`.
    data_dir: where TFDS keeps datasets; None for the directory that the run
      used.

  Returns:
    The path of the page.

  Raises:
    errors.InputError: the run is incomplete, damaged, of another version, or
      mixes files of several runs; its dataset is missing; it was moved or
      replaced meanwhile; or the report cannot be written.
  """
  check_still_there = same_run.remember(workdir)
  run = finished_run.read(workdir)
  compared = comparisons.read(compare, run)
  # Tables, figures and networks use values that have not been validated.
  with finished_run.damage(run.path):
    splits = _load_same_splits(run, data_dir)
    chosen = _examples(run, splits['test'])
    # Check before a temporary folder is made there; `check` repeats this before
    # the folder becomes the report.
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
      f'{dataset.name} is not the dataset that {run.path} was trained on: its'
      ' nodules differ. Give the directory of the original one with --data_dir.'
    )
  return splits


def _examples(run, nodules):
  ids = [record['nodule_id'] for record in run.records]
  if ids != nodules.info['nodule_id'].tolist():
    raise errors.InputError(
      f'{run.path}/records.csv does not belong to this run: its nodules are not'
      f' those of the test split of {run.config.dataset.name}. Put the original'
      ' file back, or train the run again with another --workdir.'
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
  """Checks that a stored record matches the one found by its networks."""
  for name in records.masks_of([stored]):
    key = f'{name}_dice'
    if abs(found.get(key, -1) - stored[key]) > _DICE_TOLERANCE:
      raise errors.InputError(
        f'{run.path} mixes files of several runs: its networks give'
        f' {stored["nodule_id"]} a {name} Dice of {found.get(key)}, but'
        f' records.csv has {stored[key]}. Train the run again with another'
        ' --workdir.'
      )


def main() -> None:
  """Runs the command."""
  parser = command_line.parser(__doc__, 'report')
  parser.add_argument(
    '--workdir',
    required=True,
    type=command_line.path,
    help='run directory of a finished run',
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
