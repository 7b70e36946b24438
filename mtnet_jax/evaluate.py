"""Scores a trained run on a dataset, nodule by nodule.

    python -m mtnet_jax.evaluate --workdir=runs/demo --dataset=lidc_nodules/all

writes records.csv (a row per nodule) and metrics.json into
RUN/evaluations/DATASET-SPLIT, and prints the first rows and the metrics. Every
metric is computed from the records, and you can compute further metrics from
them. For malignancy they hold the networks' malignancy_probability, 0 to 1, and
the readers' malignancy_rating_mean, 1 to 5.

Masks are compared on the patch's own pixels: the networks' probabilities are
averaged from their input grid back onto these pixels. Metrics are means over
nodules with 95 % intervals from resampling patients. metrics.json also has the
metrics over the pixels of all nodules, under "pooled".

    python -m mtnet_jax.evaluate --workdir RUN RUN2 ... --symmetries

averages the outputs over several runs, such as those of several seeds, over the
eight flips and rotations of a patch, or over both, and scores the average. It
also reports, with an interval, how much better the average is than a single run
on the patches as they are, and whether the outputs disagree more where they are
wrong. records.csv then has two more columns: malignancy_sd, the standard
deviation of the malignancy probability over the outputs, and fine_uncertainty,
the mean standard deviation of the fine probability over the pixels in at least
one mask. Results go into the first run's
evaluations/DATASET-SPLIT-ensembleN-symmetries, or into --out.

Runs of different folds have no test split in common: the test patients of one
run were training patients of the others. The effect of averaging is therefore
reported for patients that none of the runs has seen.

The seen.csv of each run lists the patients that it has seen, regardless of the
folds of the dataset. A CAUTION counts the nodules of patients that were used in
training or model selection. Results never replace those of another evaluation:
if the folder above has results of another evaluation, such as one of a dataset
that was built again or of an average with another run, a hash is added to its
name. Both files appear together, and one process at a time evaluates into a
folder. Nothing is written if a run was moved or replaced while the networks
computed.
"""

import numpy as np

from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.evaluation import averaging
from mtnet_jax.evaluation import scores
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import members
from mtnet_jax.reports import text
from mtnet_jax.storage import evaluations
from mtnet_jax.storage import same_run
from mtnet_jax.storage import workdir
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def _parse():
  parser = command_line.parser(__doc__, 'evaluate')
  parser.add_argument(
    '--workdir',
    required=True,
    nargs='+',
    action='extend',
    type=command_line.path,
    metavar='RUN',
    help='run directory of a finished training; for several runs, the mean of'
    " their probabilities is scored on the first run's split",
  )
  parser.add_argument('--symmetries', **command_line.SYMMETRIES)
  parser.add_argument(
    '--dataset',
    help='lidc_nodules/NAME; default: the dataset the run was trained on',
  )
  parser.add_argument(
    '--split', help='default: test; all splits if there is no test split'
  )
  parser.add_argument('--data_dir', **command_line.DATA_DIR)
  parser.add_argument(
    '--limit',
    type=int,
    default=0,
    help='maximum number of nodules per split; default: all',
  )
  parser.add_argument(
    '--out',
    metavar='DIR',
    type=command_line.path,
    help='folder for the results, without results of another evaluation;'
    ' default: see above',
  )
  return parser.parse_args()


def _check_all(checks):
  for check in checks:
    check()


def main() -> None:
  """Runs the command."""
  args = _parse()
  command_line.prepare_evaluation()
  still_there = [same_run.remember(path) for path in args.workdir]
  runs = members.read(args.workdir)
  config, trained = runs[0].config, runs[0].results
  name = args.dataset or config.dataset.name
  if args.limit < 0:
    raise errors.InputError(f'--limit={args.limit} must be 0 (all) or more.')
  split, data = choice.load_for_evaluation(
    name,
    args.split,
    data_dir=args.data_dir or config.dataset.data_dir,
    limit=args.limit,
    rotate_folds=config.dataset.rotate_folds,
  )
  name = lidc.lasting_name(name)
  print(
    f'{" + ".join(args.workdir)}: {len(data)}'
    f' {"SIMULATED" if data.simulated else "real"}'
    f' nodules of {name}, trained on'
    f' {"SIMULATED" if trained["simulated"] else "real"} ones.'
  )
  used = members.used_for(runs, data.info['patient_id'])
  for line in (members.note_by_fold(runs), members.caution(runs, used)):
    if line:
      print(line)
  what = {
    'dataset': name,
    'split': split,
    'fingerprint': nodules.fingerprint({split: data}),
    'members': members.described(runs),
    'symmetries': args.symmetries,
    'limit': args.limit,
  }
  default = workdir.evaluation_dir(
    args.workdir[0],
    name,
    split,
    limit=args.limit,
    members=len(runs),
    symmetries=args.symmetries,
  )
  is_averaged = len(runs) > 1 or args.symmetries
  _check_all(still_there)
  # Opened before the networks compute, since they may take long.
  with evaluations.opened(default, what, out=args.out) as out:
    singles, averaged = members.predict(
      runs,
      data,
      symmetries=args.symmetries,
      progress=command_line.progress_bar,
    )
    records, summary = scores.score(
      config,
      data,
      averaged.outputs,
      diameter_model=trained['diameter_only_model'],
      more=ensemble.disagreement(averaged) if is_averaged else None,
    )
    results = {
      **workdir.header(config, dataset=name, simulated=data.simulated),
      **what,
      'trained_on': {key: trained[key] for key in ('dataset', 'simulated')},
      'diameter_only_model': trained['diameter_only_model'],
      'nodules_of_training_patients': int(np.sum(used != '')),
      'seen': members.seen_counts(runs, used),
      split: summary,
    }
    if is_averaged:
      results['averaging'] = averaging.judge(
        singles, records, used == '', seed=config.seed
      )
    _check_all(still_there)
    evaluations.write(out, results, records)
  print(text.per_nodule(records))
  print(
    text.beside_the_paper(
      summary, simulated=data.simulated, strategy=config.strategy
    )
  )
  if is_averaged:
    print(
      '\n'
      + text.averaging(
        results['averaging'],
        runs=len(runs),
        symmetries=args.symmetries,
        strategy=config.strategy,
        simulated=data.simulated,
      )
    )
  print(f'Written: {out}/metrics.json and records.csv')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
