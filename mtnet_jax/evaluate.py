"""Scores a trained run on a dataset, nodule by nodule.

    python -m mtnet_jax.evaluate --workdir=runs/demo --dataset=lidc_nodules/all

writes records.csv (a row per nodule) and metrics.json into
RUN/evaluations/DATASET-SPLIT and prints the first rows and the metrics. Every
metric is computed from the records, so that whoever has them can compute
others.

Masks are compared on the patch's own pixels: the networks' probabilities are
averaged from their input grid back onto it. Metrics are means over nodules
with 95 % intervals from resampling patients; the values over the pooled
pixels stand beside them.

    python -m mtnet_jax.evaluate --workdir RUN RUN2 ... --symmetries

scores what several runs say together, such as those of several seeds, and the
average over the eight ways in which a patch can lie: either, or both. It also
says, with an interval, what that is worth over a single run with one look, and
whether answers disagree where they are wrong. records.csv then has the columns
malignancy_sd (standard deviation of the probability of malignancy over the
answers) and fine_uncertainty (mean standard deviation of the fine probability
over the pixels that at least one answer marks). Results go into the first
run's evaluations/DATASET-SPLIT-ensembleN-symmetries, or into --out.

Runs of different folds have no test split in common: what one keeps for its
test, the others were trained on. What averaging is worth is told of patients
only that none of the runs has seen.
"""

import argparse
import dataclasses
import pathlib
import re

from absl import logging
import numpy as np

from mtnet_jax import averaging
from mtnet_jax import ensemble
from mtnet_jax import errors
from mtnet_jax import files
from mtnet_jax import host_memory
from mtnet_jax import inference
from mtnet_jax import input_pipeline
from mtnet_jax import members
from mtnet_jax import metrics
from mtnet_jax import parallel
from mtnet_jax import reader_agreement
from mtnet_jax import scores
from mtnet_jax import stages
from mtnet_jax import tables
from mtnet_jax import workdir


def predict(config, variables, nodules, *, progress):
  """Runs the networks over a split.

  Args:
    config: the run's config.
    variables: stage name -> variables as NumPy arrays.
    nodules: `input_pipeline.Nodules`.
    progress: wraps the batches, as tqdm does.

  Returns:
    The outputs of `inference.predict_step` for every nodule.
  """
  predictor = inference.Predictor(
    stages.make_nets(config),
    batch_size=min(config.eval_batch_size, len(nodules)),
    precision=config.matmul_precision,
    **inference.options(config),
  )
  return predictor(parallel.replicate(variables), nodules.image, progress)


def make_records(nodules, outputs, more=None, *, readers=True):
  """A dict per nodule: who it is, what was predicted, how well.

  Args:
    nodules: `input_pipeline.Nodules`.
    outputs: of `predict`. What is not in them has no column.
    more: further columns, name -> (N,).
    readers: whether to compare with single readers, too, which takes longest.

  Returns:
    A list of flat dicts of Python numbers and strings; a metric without a
    denominator is None.
  """
  columns = {
    **nodules.info,
    'simulated': np.full(len(nodules), nodules.simulated),
    'label': nodules.label,
  }
  if 'class' in outputs:
    columns['malignancy_probability'] = outputs['class']
  drawn = {
    name: outputs[name] >= metrics.THRESHOLD
    for name in ('coarse', 'fine')
    if name in outputs
  }
  for name, masks in drawn.items():
    counts = metrics.pixel_counts(masks, nodules.mask)
    values = {**metrics.segmentation_from_counts(counts), **counts}
    columns.update({f'{name}_{key}': x for key, x in values.items()})
  if readers:
    columns.update(reader_agreement.columns(nodules, drawn))
  columns.update(more or {})
  return [
    {key: _plain(values[i]) for key, values in columns.items()}
    for i in range(len(nodules))
  ]


def _plain(value):
  value = value.item() if hasattr(value, 'item') else value
  return None if isinstance(value, float) and np.isnan(value) else value


def score(config, nodules, outputs, *, diameter_model, more=None):
  """Records and metrics of a dataset.

  Args:
    config: the run's config.
    nodules: `input_pipeline.Nodules`.
    outputs: of `predict`, for the same nodules.
    diameter_model: of `scores.fit_diameter_only`.
    more: as in `make_records`.

  Returns:
    records, and the tree of `scores.summarise`.
  """
  records = make_records(nodules, outputs, more)
  summary = scores.summarise(
    records, diameter_model=diameter_model, seed=config.seed
  )
  return records, summary


def listen(runs, nodules, *, symmetries, progress):
  """Lets runs answer about a split, one after the other.

  Args:
    runs: of `members.read`.
    nodules: `input_pipeline.Nodules`.
    symmetries: whether each looks at every patch in all eight ways in which it
      can lie.
    progress: of a description makes what wraps the batches, as
      `tables.progress_bar`.

  Returns:
    Records of each run by itself, of one look at the patches as they are; and
    all answers as an `ensemble.Averaged`.
  """
  singles = []
  total = len(runs) * (ensemble.NUM_SYMMETRIES if symmetries else 1)
  titles = (
    f'evaluating, {number} of {total}' for number in range(1, total + 1)
  )

  def answers():
    for run in runs:
      variables = workdir.load_variables(run.path, stages.names(run.config))

      def look(hu, run=run, variables=variables):
        return predict(
          run.config,
          variables,
          dataclasses.replace(nodules, image=hu),
          progress=progress(next(titles)),
        )

      if symmetries:
        looks = ensemble.symmetric(look, nodules.image)
      else:
        looks = iter([look(nodules.image)])
      plain = next(looks)
      singles.append(make_records(nodules, plain, readers=False))
      yield plain
      yield from looks

  averaged = ensemble.average(answers())
  return singles, averaged


def _load_splits(name, split, *, data_dir, limit, rotate_folds):
  """The asked split, or all where the dataset has no test split."""
  present = input_pipeline.splits(name, data_dir)
  if split is None:
    wanted = ['test'] if 'test' in present else present
  else:
    wanted = [split]
  label = wanted[0] if len(wanted) == 1 else 'all'
  return label, input_pipeline.concatenate(
    [
      input_pipeline.load(
        name,
        split,
        data_dir=data_dir,
        limit=limit,
        rotate_folds=rotate_folds,
      )
      for split in wanted
    ]
  )


def _parse():
  parser = argparse.ArgumentParser(
    prog='python -m mtnet_jax.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--workdir',
    required=True,
    nargs='+',
    action='extend',
    metavar='RUN',
    help='run directory of a finished training; of several, the mean of their'
    " probabilities, on the first one's split",
  )
  parser.add_argument(
    '--symmetries',
    action='store_true',
    help='average over the eight rotations and reflections of each patch; it'
    ' takes eight times as long',
  )
  parser.add_argument(
    '--dataset',
    help='lidc_nodules/NAME; default: the one the run was trained on',
  )
  parser.add_argument(
    '--split', help='default: test; all splits where there is no test'
  )
  parser.add_argument(
    '--data_dir',
    help='where TFDS keeps datasets (default: as in the run)',
  )
  parser.add_argument(
    '--limit', type=int, default=0, help='at most so many nodules a split'
  )
  parser.add_argument(
    '--out', metavar='DIR', help='folder for the results; default: see above'
  )
  return parser.parse_args()


def _folder(args, name, split):
  """Where the results go."""
  if args.out:
    return pathlib.Path(args.out)
  # A policy in the name has letters that no folder should.
  folder = re.sub(r'[^\w.]+', '-', f'{name}-{split}')
  if args.limit:
    folder += f'-limit{args.limit}'
  if len(args.workdir) > 1:
    folder += f'-ensemble{len(args.workdir)}'
  if args.symmetries:
    folder += '-symmetries'
  return pathlib.Path(args.workdir[0], 'evaluations', folder)


def main():
  args = _parse()
  # Libraries warn of what is said better below, such as a dataset not built.
  logging.set_verbosity(logging.ERROR)
  host_memory.keep()
  runs = members.read(args.workdir)
  (_, config, trained), *_ = runs
  name = args.dataset or config.dataset.name
  if args.limit < 0:
    raise errors.InputError(f'--limit={args.limit} must be 0 (all) or more.')
  split, data = _load_splits(
    name,
    args.split,
    data_dir=args.data_dir or config.dataset.data_dir,
    limit=args.limit,
    rotate_folds=config.dataset.rotate_folds,
  )
  out = _folder(args, name, split)
  print(
    f'{" + ".join(args.workdir)}: {len(data)}'
    f' {"SIMULATED" if data.simulated else "real"}'
    f' nodules of {name}, trained on'
    f' {"SIMULATED" if trained["simulated"] else "real"} ones.'
  )
  seen = input_pipeline.of_training_patients(data, members.rotations(runs))
  if seen.any():
    print(members.caution(runs, int(seen.sum())))
  workdir.make_folder(out, '--out' if args.out else '--workdir')
  singles, averaged = listen(
    runs,
    data,
    symmetries=args.symmetries,
    progress=tables.progress_bar,
  )
  is_averaged = len(runs) > 1 or args.symmetries
  records, summary = score(
    config,
    data,
    averaged.outputs,
    diameter_model=trained['diameter_only_model'],
    more=ensemble.disagreement(averaged) if is_averaged else None,
  )
  results = {
    **workdir.header(config, dataset=name, simulated=data.simulated),
    'trained_on': {key: trained[key] for key in ('dataset', 'simulated')},
    'diameter_only_model': trained['diameter_only_model'],
    'members': members.described(runs),
    'symmetries': args.symmetries,
    'limit': args.limit,
    'nodules_of_training_patients': int(seen.sum()),
    split: summary,
  }
  if is_averaged:
    results['averaging'] = averaging.judge(
      singles, records, ~seen, seed=config.seed
    )
  files.write_csv(out / 'records.csv', records)
  files.write_json(out / 'metrics.json', results)
  print(tables.per_nodule(records))
  print(
    tables.beside_the_paper(
      summary, simulated=data.simulated, strategy=config.strategy
    )
  )
  if is_averaged:
    print(
      '\n'
      + averaging.text(
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
