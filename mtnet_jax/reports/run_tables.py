"""Makes the tables of a run's results on the test set.

Their estimates come from `scores.summarise` (`summary`), and the display names
of the networks from `tables.network_names` (`names`).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import dataset_names
from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

if TYPE_CHECKING:
  from mtnet_jax.evaluation import subgroups as subgroups_lib
  from mtnet_jax.reports import examples as examples_lib


def _plain(*keys_and_titles):
  return [tables.Column(*names, 'plain') for names in keys_and_titles]


def cohort(
  counts: Mapping[str, Mapping[str, int]], dataset: str
) -> tables.Table:
  """Returns the numbers of nodules and patients in each split.

  Args:
    counts: split -> `nodules.count` of it.
    dataset: name of the dataset.
  """
  columns = ('nodules', 'benign', 'malignant', 'open', 'patients')
  return tables.Table(
    'cohort',
    'nodules and patients',
    _plain(*((key, key) for key in columns)),
    [
      tables.Row(split, [count[key] for key in columns], 'counts')
      for split, count in counts.items()
    ],
    f'Split {dataset_names.how_split(dataset)}. Open: the readers disagree, so'
    ' there is no label.',
    'Split',
  )


def segmentation(
  summary: Mapping[str, Any], strategy: str = 'mtnet'
) -> tables.Table:
  """Returns segmentation metrics: means, pooled pixels, paper, difference.

  Args:
    summary: from `scores.summarise`.
    strategy: config.strategy.
  """
  columns = tables.SEGMENTATION
  masks, names = summary['segmentation'], tables.network_names(strategy)
  rows = []
  for name in ('coarse', 'fine'):
    estimates = masks.get(name)
    # Only MT-Net always has both masks; it shows one that was not run.
    if estimates is None and strategy != 'mtnet':
      continue
    rows.append(tables.row(names[name], estimates, columns))
    if estimates is not None:
      pooled = estimates['pooled']
      rows.append(tables.row('pooled pixels', pooled, columns, 'pooled'))
    rows += _published(strategy, name, columns)
  if 'fine_minus_coarse' in masks:
    change = masks['fine_minus_coarse']
    rows.append(tables.row('Fine - coarse', change, columns, 'difference'))
  return tables.Table(
    'segmentation',
    'segmentation of the test nodules',
    columns,
    rows,
    'DI Dice, JA Jaccard index, ACC accuracy, SPE specificity of pixels.',
    'Network',
  )


def classification(
  summary: Mapping[str, Any], strategy: str = 'mtnet'
) -> tables.Table:
  """Returns classification metrics: the network, paper, diameter alone.

  Args:
    summary: from `scores.summarise`.
    strategy: config.strategy.
  """
  columns = tables.CLASSIFICATION
  name = tables.network_names(strategy)['class']
  (ours, baseline, *change) = (
    tables.row(title, summary.get(key), columns, kind)
    for key, title, kind in _classifiers(name)
    if kind == 'nodules' or key in summary
  )
  return tables.Table(
    'classification',
    'classification of the test nodules',
    columns,
    [ours, *_published(strategy, 'class', columns), baseline, *change],
    'ACC accuracy, AUC area under the ROC curve, SEN sensitivity, SPE'
    ' specificity. A nodule is called malignant if its probability is'
    f' {metrics.THRESHOLD} or more. Diameter only: logistic regression on the'
    " readers' diameter, fitted to the training nodules.",
    'Classifier',
  )


def _published(strategy, output, columns):
  """Yields the paper's row if the paper reports this output."""
  values = paper.STRATEGIES.get(strategy, {}).get(output)
  if values:
    yield tables.row('paper, real CT', values, columns, 'paper')


def _classifiers(name):
  """Returns (key in the summary, title, kind) of each classifier's row."""
  return (
    ('classification', name, 'nodules'),
    ('diameter_only', 'Diameter only', 'nodules'),
    (
      'classification_minus_diameter_only',
      f'{name} - diameter only',
      'difference',
    ),
  )


def probabilities(
  summary: Mapping[str, Any], names: Mapping[str, str]
) -> tables.Table:
  """Returns average precision, calibration error and Brier score."""
  estimates = summary['probabilities']
  columns = [
    tables.Column(key, title, 'fraction')
    for key, title in (
      ('average_precision', 'AP'),
      ('calibration_error', 'ECE'),
      ('brier', 'Brier score'),
      ('calibration_error_if_calibrated', 'ECE if calibrated'),
    )
  ]
  # Differences lack it, and so do results without resampling.
  undefined = {'calibration_error_if_calibrated': {'value': None, 'ci95': None}}
  rows = [
    tables.row(title, {**undefined, **estimates[name]}, columns, kind)
    for name, title, kind in _classifiers(names['class'])
    if name in estimates
  ]
  return tables.Table(
    'probabilities',
    'probabilities of malignancy, regardless of the threshold',
    columns,
    rows,
    'AP: average precision. ECE: expected calibration error, the mean distance'
    ' between predicted probability and proportion of malignant nodules over'
    ' ten bins of equal width, weighted by nodules. 0 is best, but chance keeps'
    ' it above 0: the last column is the ECE that perfectly calibrated'
    ' probabilities of the same size would have here (mean, and 95 % of draws).'
    ' The interval of the ECE is corrected for the chance that resampling adds.'
    ' Brier score: mean squared error of the probability; 0 is best.',
    'Classifier',
  )


def confusion(
  labels: np.ndarray, predictions: np.ndarray, names: Mapping[str, str]
) -> tables.Table:
  """Returns the confusion matrix at the threshold.

  Args:
    labels: (N,) of 0 and 1, the readers'.
    predictions: (N,) of 0 and 1, the classifier's.
    names: from `tables.network_names`.
  """
  words = [metrics.LABELS[label] for label in (0, 1)]
  rows = [
    tables.Row(
      f'readers: {words[label]}',
      [
        int(((labels == label) & (predictions == prediction)).sum())
        for prediction in (0, 1)
      ],
      'counts',
    )
    for label in (0, 1)
  ]
  return tables.Table(
    'confusion',
    f'{names["class"]} at a probability of {metrics.THRESHOLD}',
    _plain(*((f'called_{word}', f'called {word}') for word in words)),
    rows,
    head='Nodules',
  )


def readers(
  summary: Mapping[str, Any], names: Mapping[str, str]
) -> tables.Table:
  """Returns the readers' agreement with each other and with the networks."""
  agreement = summary['readers']
  masks = [name for name in ('coarse', 'fine') if name in agreement]
  rows = [
    ('with_each_other', 'Readers with each other', 'nodules'),
    *((name, f'{names[name]} with readers', 'nodules') for name in masks),
    ('consensus', 'Their consensus with readers', 'nodules'),
    *(
      (
        f'{name}_minus_with_each_other',
        f'{names[name]} - readers',
        'difference',
      )
      for name in masks
    ),
  ]
  return tables.Table(
    'readers',
    'Dice with single readers: the human ceiling',
    [tables.Column('dice', 'Dice')],
    [tables.Row(title, [agreement[key]], kind) for key, title, kind in rows],
    f'{agreement["nodules"]} nodules of {agreement["patients"]} patients that'
    ' at least two readers marked, on the same slice and pixels. First row: the'
    ' mean over all pairs of readers. Others: the mean over single readers. A'
    " mask learned from the readers' consensus can agree better with"
    ' each reader than the readers with each other. So does the consensus: its'
    ' row is what a network that reproduces the consensus exactly would reach.',
    'Who with whom',
  )


def subgroups(
  groups: 'Sequence[subgroups_lib.Group]', names: Mapping[str, str]
) -> tables.Table:
  """Returns the results of each group.

  Args:
    groups: from `subgroups.make`.
    names: from `tables.network_names`.
  """
  titles = {
    'coarse_dice': f'{names["coarse"]} DI',
    'fine_dice': f'{names["fine"]} DI',
    'reader_dice': 'Readers DI',
    'accuracy': f'{names["class"]} ACC',
    'auc': f'{names["class"]} AUC',
  }
  present = [
    key for key in titles if any(key in group.estimates for group in groups)
  ]
  counts = ('nodules', 'patients', 'malignant', 'labelled')
  return tables.Table(
    'subgroups',
    'results by size, texture and reader agreement',
    [
      *_plain(*((key, key) for key in counts)),
      *(tables.Column(key, titles[key]) for key in present),
    ],
    [
      tables.Row(
        f'{group.family}: {group.name}',
        [
          *(getattr(group, key) for key in counts),
          *(group.estimates[key] for key in present),
        ],
        'nodules',
      )
      for group in groups
    ],
    'Intervals come from resampling the patients of the group. They are too'
    ' narrow for a handful of patients, and do not exist for one patient. There'
    ' is no correction for the number of groups: a difference between groups is'
    ' a hypothesis, not a result. Readers DI: readers with each other.',
    'Group',
  )


def examples(
  chosen: 'Sequence[examples_lib.Example]', names: Mapping[str, str]
) -> tables.Table:
  """Returns the nodules of the figure.

  Args:
    chosen: from `examples.collect`.
    names: from `tables.network_names`.
  """
  columns = [
    ('rank', 'Rank'),
    ('diameter_mm', 'Diameter, mm'),
    ('readers', 'Readers'),
  ]
  keys = []  # of the records
  if chosen[0].cam is not None:
    columns.append(('malignancy', 'Malignancy'))
    keys.append('malignancy_probability')
  for mask in chosen[0].masks:
    columns.append((f'{mask}_dice', f'{names[mask]} Dice'))
    keys.append(f'{mask}_dice')
  rows = []
  for rank, record, *_ in chosen:
    cells = [
      rank,
      f'{record["diameter_mm"]:.1f}',
      metrics.LABELS[record['label']],
      *(f'{record[key]:.3f}' for key in keys),
    ]
    rows.append(tables.Row(str(record['nodule_id']), cells, 'counts'))
  return tables.Table(
    'examples',
    'the nodules of the figure',
    _plain(*columns),
    rows,
    'Readers: their label. Malignancy: the predicted probability.',
    'Nodule',
  )
