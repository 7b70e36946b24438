"""The report of a run: one HTML page and its figures.

Nothing in it needs a network or JavaScript, so the folder can be sent to
somebody as it is. The page is written last, and every file whole or not at
all: a report that was interrupted never shows half.
"""

import pathlib

import jinja2
import numpy as np

from mtnet_jax import figures
from mtnet_jax import files
from mtnet_jax import metrics
from mtnet_jax import paper
from mtnet_jax import tables
from mtnet_jax import workdir

# Stage -> title, key and name of the metric by which its best epoch is kept.
_STAGES = {
  'coarse': ('Coarse Seg-net', 'val_jaccard', 'Jaccard index'),
  'class': ('Class-net', 'val_auc', 'AUC'),
  'fine': ('Fine Seg-net', 'val_jaccard', 'Jaccard index'),
  'joint': (
    'both tasks in one',
    'val_jaccard_and_auc',
    'mean of Jaccard index and AUC',
  ),
}
_MOST_PER_PLACE = 2


def write(directory, *, results, records, histories, nodules, outputs):
  """Writes index.html and the PNGs beside it.

  Args:
    directory: where to; created if missing.
    results: what metrics.json holds.
    records: a dict per test nodule, of `evaluate.make_records`.
    histories: stage name -> a dict per epoch, of `train.Trainer.run`.
    nodules: the test split, `input_pipeline.Nodules`.
    outputs: of `evaluate.predict`, for the same nodules.

  Raises:
    errors.InputError: it cannot be written.
  """
  directory = pathlib.Path(directory)
  workdir.make_folder(directory)
  simulated = results['simulated']
  summary = results['test']
  trained = [name for name in _STAGES if histories.get(name)]

  def save(name, figure, alt):
    figures.save(figure, directory / name)
    return {'file': name, 'alt': alt}

  curves = [
    save(
      f'training-{name}.png',
      figures.training_curves(
        histories[name],
        title=_STAGES[name][0],
        metric=_STAGES[name][1],
        metric_name=_STAGES[name][2],
        simulated=simulated,
      ),
      f'Training of {_STAGES[name][0]}: loss and {_STAGES[name][2]} by epoch',
    )
    for name in trained
  ]
  dice = save(
    'dice.png',
    figures.dice_by_diameter(records, simulated=simulated),
    'Dice of every test nodule against its diameter',
  )
  roc, why_no_roc = None, _why_no_roc(records)
  if not why_no_roc:
    roc = save(
      'roc.png',
      _roc(records, results['diameter_only_model'], simulated=simulated),
      'ROC curves of Class-net and of the diameter alone',
    )
  chosen = choose_examples([record['fine_dice'] for record in records])
  examples = save(
    'examples.png',
    figures.examples(
      chosen,
      records=records,
      nodules=nodules,
      masks={
        name: outputs[name] >= metrics.THRESHOLD for name in ('coarse', 'fine')
      },
      cam=outputs['cam'],
      simulated=simulated,
    ),
    'CT, outlines and activation maps of the nodules of the table below',
  )
  page = (
    _environment()
    .get_template('report.html')
    .render(
      results=results,
      summary=summary,
      simulated=simulated,
      facts=_facts(results),
      segmentation={
        'name': 'Segmentation',
        'columns': tables.SEGMENTATION,
        'rows': tables.segmentation_rows(summary),
      },
      classification={
        'name': 'Classification',
        'columns': tables.CLASSIFICATION,
        'rows': tables.classification_rows(summary),
      },
      stages=[_stage_row(name, histories[name]) for name in trained],
      curves=curves,
      dice=dice,
      roc=roc,
      why_no_roc=why_no_roc,
      examples=examples,
      chosen=[{**records[index], 'place': place} for place, index in chosen],
      labels=metrics.LABELS,
      citation=paper.CITATION,
    )
  )
  files.write_text(directory / 'index.html', page)


def _environment():
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('mtnet_jax'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters.update(
    percent=tables.percent, difference=tables.difference
  )
  return environment


def _facts(results):
  """(name, text) of what was run, on what, with what."""
  summary, hardware = results['test'], results['hardware']
  benign = summary['labelled'] - summary['malignant']
  open_ones = summary['nodules'] - summary['labelled']
  nodules = f'{summary["nodules"]}: {summary["malignant"]} malignant,'
  nodules += f' {benign} benign' + (f', {open_ones} open' if open_ones else '')
  return [
    ('Dataset', results['dataset']),
    ('CT', 'SIMULATED' if results['simulated'] else 'real'),
    ('Test nodules', nodules),
    ('Test patients', summary['patients']),
    ('Variant', results['variant']),
    ('Seed', results['seed']),
    (
      'Hardware',
      f'{hardware["devices"]} x {hardware["kind"]} ({hardware["platform"]})',
    ),
    (
      'Versions',
      ', '.join(f'{k} {v}' for k, v in results['versions'].items()),
    ),
  ]


def _stage_row(name, history):
  title, metric, metric_name = _STAGES[name]
  kept = figures.kept_row(history)
  return {
    'title': title,
    'epochs': len(history),
    'kept': kept['epoch'],
    'metric_name': metric_name,
    'metric': f'{kept[metric]:.3f}',
    'time': _duration(sum(row['seconds'] for row in history)),
  }


def _duration(seconds):
  for size, unit in ((3600, 'h'), (60, 'min')):
    if seconds >= size:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds:.0f} s'


def _why_no_roc(records):
  """Why there is no ROC, or ''."""
  present = {record['label'] for record in records}
  missing = [metrics.LABELS[label] for label in (0, 1) if label not in present]
  if not missing:
    return ''
  return (
    'There is no ROC curve: the test set has no nodule labelled'
    f' {" or ".join(missing)}.'
  )


def _roc(records, diameter_model, *, simulated):
  known = [record for record in records if record['label'] >= 0]
  logits = diameter_model['intercept'] + diameter_model['slope'] * np.asarray(
    [record['diameter_mm'] for record in known]
  )
  return figures.roc(
    [record['label'] for record in known],
    {
      'Class-net': (
        [record['malignancy_probability'] for record in known],
        metrics.THRESHOLD,
      ),
      # A probability of one half is a logit of 0.
      'Diameter only': (logits, 0.0),
    },
    simulated=simulated,
  )


def choose_examples(dice):
  """The best, median and worst nodules, each at most once.

  Args:
    dice: (N,).

  Returns:
    List of (place, index), from best to worst: two of each where there are
    six nodules, one of each where there are three.
  """
  order = np.argsort(-np.asarray(dice), kind='stable').tolist()
  each = max(1, min(_MOST_PER_PLACE, len(order) // 3))
  middle = (len(order) - each) // 2
  places = {}
  for place, part in (
    ('best', order[:each]),
    ('worst', order[-each:]),
    ('median', order[middle : middle + each]),
  ):
    for index in part:
      places.setdefault(index, place)
  return [(places[index], index) for index in order if index in places]
