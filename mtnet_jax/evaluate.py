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
"""

import argparse
import pathlib
import re

from absl import logging
import numpy as np

from mtnet_jax import errors
from mtnet_jax import files
from mtnet_jax import inference
from mtnet_jax import input_pipeline
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


def make_records(nodules, outputs):
  """A dict per nodule: who it is, what was predicted, how well.

  Args:
    nodules: `input_pipeline.Nodules`.
    outputs: of `predict`. What is not in them has no column.

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
  columns.update(reader_agreement.columns(nodules, drawn))
  return [
    {key: _plain(values[i]) for key, values in columns.items()}
    for i in range(len(nodules))
  ]


def _plain(value):
  value = value.item() if hasattr(value, 'item') else value
  return None if isinstance(value, float) and np.isnan(value) else value


def score(config, nodules, outputs, *, diameter_model):
  """Records and metrics of a dataset.

  Args:
    config: the run's config.
    nodules: `input_pipeline.Nodules`.
    outputs: of `predict`, for the same nodules.
    diameter_model: of `scores.fit_diameter_only`.

  Returns:
    records, and the tree of `scores.summarise`.
  """
  records = make_records(nodules, outputs)
  summary = scores.summarise(
    records, diameter_model=diameter_model, seed=config.seed
  )
  return records, summary


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


def main():
  parser = argparse.ArgumentParser(
    prog='python -m mtnet_jax.evaluate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--workdir', required=True, help='run directory of a finished training'
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
  args = parser.parse_args()
  # Libraries warn of what is said better below, such as a dataset not built.
  logging.set_verbosity(logging.ERROR)
  config = workdir.read_config(args.workdir)
  variables = workdir.load_variables(args.workdir, stages.names(config))
  trained = workdir.read_metrics(args.workdir)
  name = args.dataset or config.dataset.name
  data_dir = args.data_dir or config.dataset.data_dir
  if args.limit < 0:
    raise errors.InputError(f'--limit={args.limit} must be 0 (all) or more.')
  rotate_folds = config.dataset.rotate_folds
  split, data = _load_splits(
    name,
    args.split,
    data_dir=data_dir,
    limit=args.limit,
    rotate_folds=rotate_folds,
  )
  # A policy in the name has letters that no folder should.
  folder = re.sub(r'[^\w.]+', '-', f'{name}-{split}')
  if args.limit:
    folder += f'-limit{args.limit}'
  out = pathlib.Path(args.workdir, 'evaluations', folder)
  print(
    f'{args.workdir}: {len(data)} {"SIMULATED" if data.simulated else "real"}'
    f' nodules of {name}, trained on'
    f' {"SIMULATED" if trained["simulated"] else "real"} ones.'
  )
  seen = input_pipeline.of_training_patients(data, rotate_folds)
  if seen:
    print(
      f'CAUTION: {seen} of them are of patients whose nodules the run was'
      ' trained on or chosen by\n(all folds but'
      f' {input_pipeline.folds("test", rotate_folds)[0]}), at least with their'
      ' outlines: the numbers below flatter it.'
    )
  outputs = predict(
    config, variables, data, progress=tables.progress_bar('evaluating')
  )
  records, summary = score(
    config, data, outputs, diameter_model=trained['diameter_only_model']
  )
  results = {
    **workdir.header(config, dataset=name, simulated=data.simulated),
    'trained_on': {key: trained[key] for key in ('dataset', 'simulated')},
    'diameter_only_model': trained['diameter_only_model'],
    'limit': args.limit,
    'nodules_of_training_patients': seen,
    split: summary,
  }
  workdir.make_folder(out)
  files.write_csv(out / 'records.csv', records)
  files.write_json(out / 'metrics.json', results)
  print(tables.per_nodule(records))
  print(
    tables.beside_the_paper(
      summary, simulated=data.simulated, strategy=config.strategy
    )
  )
  print(f'Written: {out}/metrics.json and records.csv')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
