"""The report's own tables: results, malignancy, readers, groups, training."""

from mtnet_jax import metrics
from mtnet_jax.data import lidc
from mtnet_jax.reports import figures
from mtnet_jax.reports import tables

_PLAIN, _FRACTION = 'plain', 'fraction'


def cohort(counts, dataset):
  """Nodules and patients.

  Args:
    counts: split -> of `nodules.count`.
    dataset: name of the dataset.
  """
  columns = ('nodules', 'benign', 'malignant', 'open', 'patients')
  return tables.Table(
    'cohort',
    'nodules and patients',
    [tables.Column(key, key, _PLAIN) for key in columns],
    [
      tables.Row(split, [count[key] for key in columns], 'counts')
      for split, count in counts.items()
    ],
    f'Split {lidc.how_split(dataset)}. Open: the readers disagree, so'
    ' that there is no label.',
    'Split',
  )


def segmentation(summary, strategy):
  """Masks: means over nodules, pooled pixels, the paper, the difference."""
  return tables.Table(
    'segmentation',
    'segmentation of the test nodules',
    tables.percent_columns(tables.SEGMENTATION),
    tables.segmentation_rows(summary, strategy=strategy),
    'DI Dice, JA Jaccard index, ACC accuracy, SPE specificity of pixels.',
    'Network',
  )


def classification(summary, strategy):
  """Benign or malignant, beside the paper and the diameter alone."""
  return tables.Table(
    'classification',
    'classification of the test nodules',
    tables.percent_columns(tables.CLASSIFICATION),
    tables.classification_rows(summary, strategy=strategy),
    'ACC accuracy, AUC area under the ROC curve, SEN sensitivity, SPE'
    ' specificity; a nodule is called malignant from a probability of'
    f' {metrics.THRESHOLD} on. Diameter only: logistic regression on the'
    " readers' diameter, fitted to the training nodules.",
    'Classifier',
  )


def probabilities(summary, names):
  """Whatever the threshold: average precision, calibration error, Brier."""
  tree = summary['probabilities']
  columns = [
    tables.Column('average_precision', 'AP', _FRACTION),
    tables.Column('calibration_error', 'ECE', _FRACTION),
    tables.Column('brier', 'Brier score', _FRACTION),
    tables.Column(
      'calibration_error_if_calibrated', 'ECE if calibrated', _FRACTION
    ),
  ]
  undefined = {'value': None, 'ci95': None}
  rows = [
    tables.Row(
      title,
      [tree[name].get(column.key, undefined) for column in columns],
      kind,
    )
    for name, title, kind in (
      ('classification', names['class'], 'nodules'),
      ('diameter_only', 'Diameter only', 'nodules'),
      (
        'classification_minus_diameter_only',
        f'{names["class"]} - diameter only',
        'difference',
      ),
    )
    if name in tree
  ]
  return tables.Table(
    'probabilities',
    'probabilities of malignancy, whatever the threshold',
    columns,
    rows,
    'AP average precision. ECE expected calibration error: the mean distance of'
    ' predicted probability and malignant share over ten bins of equal width,'
    ' weighted by nodules; 0 is best, but chance alone keeps it above: the last'
    ' column is what perfectly calibrated probabilities of the same size would'
    ' show here (mean, and 95 % of draws). Resampling adds chance of its own,'
    ' which is taken off the interval of the ECE. Brier score: mean squared'
    ' error of the probability; 0 is best.',
    'Classifier',
  )


def confusion(labels, called, names):
  """Counts at the threshold.

  Args:
    labels, called: (N,) of 0 and 1.
    names: of `tables.network_names`.
  """
  words = [metrics.LABELS[label] for label in (0, 1)]
  rows = [
    tables.Row(
      f'readers: {words[label]}',
      [int(((labels == label) & (called == call)).sum()) for call in (0, 1)],
      'counts',
    )
    for label in (0, 1)
  ]
  return tables.Table(
    'confusion',
    f'{names["class"]} at a probability of {metrics.THRESHOLD}',
    [
      tables.Column(f'called_{word}', f'called {word}', _PLAIN)
      for word in words
    ],
    rows,
    head='Nodules',
  )


def readers(summary, names):
  """The readers' agreement with each other, and the networks' with them."""
  tree = summary['readers']
  drawn = [name for name in ('coarse', 'fine') if name in tree]
  rows = [('with_each_other', 'Readers with each other', 'nodules')]
  rows += [(name, f'{names[name]} with readers', 'nodules') for name in drawn]
  rows += [('consensus', 'Their consensus with readers', 'nodules')]
  rows += [
    (
      f'{name}_minus_with_each_other',
      f'{names[name]} - readers',
      'difference',
    )
    for name in drawn
  ]
  return tables.Table(
    'readers',
    'Dice with single readers: the human ceiling',
    [tables.Column('dice', 'Dice')],
    [tables.Row(title, [tree[key]], kind) for key, title, kind in rows],
    f'Of {tree["nodules"]} nodules of {tree["patients"]} patients that two'
    ' readers or more marked, on the same slice and pixels. First row: the mean'
    ' over all pairs of readers. Others: the mean over the readers, one at a'
    " time. A mask learned from the readers' consensus can come nearer to each"
    ' of them than they to each other, as the consensus itself does: its row is'
    ' what a network that draws just the consensus would reach.',
    'Who with whom',
  )


def subgroups(groups, names):
  """Results of each of `subgroups.make`."""
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
      *(tables.Column(key, key, _PLAIN) for key in counts),
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
    'Intervals resample the patients of the group; of a handful of patients'
    ' they are too narrow, and of one there is none. Groups are not corrected'
    ' for their number: a difference between them is a question, no finding.'
    ' Readers DI: readers with each other.',
    'Group',
  )


def training(histories, stages):
  """Epochs, the kept one and the time of each stage.

  Args:
    histories: stage name -> a dict per epoch.
    stages: name -> (title, metric, its name) of the stages to list.
  """
  rows = []
  for name, history in histories.items():
    title, metric, metric_name = stages[name]
    kept = figures.kept_row(history)
    rows.append(
      tables.Row(
        title,
        [
          len(history),
          kept['epoch'],
          metric_name,
          f'{kept[metric]:.3f}',
          _duration(sum(row['seconds'] for row in history)),
        ],
        'counts',
      )
    )
  return tables.Table(
    'training',
    'the stages of training',
    [
      tables.Column(key, title, _PLAIN)
      for key, title in (
        ('epochs', 'Epochs'),
        ('kept_epoch', 'Kept epoch'),
        ('metric', 'Validation metric'),
        ('value', 'Value'),
        ('time', 'Time'),
      )
    ],
    rows,
    'Kept: the epoch of the highest validation metric. It is a single number of'
    ' the split by which it was chosen, and no result.',
    'Stage',
  )


def examples(chosen, names):
  """The nodules of the figure, of `examples.collect`."""
  drawn = list(chosen[0].masks)
  columns = [
    ('rank', 'Rank'),
    ('diameter_mm', 'Diameter, mm'),
    ('readers', 'Readers'),
    *([('malignancy', 'Malignancy')] if chosen[0].cam is not None else []),
    *((f'{name}_dice', f'{names[name]} Dice') for name in drawn),
  ]
  rows = []
  for example in chosen:
    record = example.record
    cells = {
      'rank': example.rank,
      'diameter_mm': f'{record["diameter_mm"]:.1f}',
      'readers': metrics.LABELS[record['label']],
      **{f'{name}_dice': f'{record[f"{name}_dice"]:.3f}' for name in drawn},
    }
    if example.cam is not None:
      cells['malignancy'] = f'{record["malignancy_probability"]:.3f}'
    rows.append(
      tables.Row(
        str(record['nodule_id']), [cells[key] for key, _ in columns], 'counts'
      )
    )
  return tables.Table(
    'examples',
    'the nodules of the figure',
    [tables.Column(key, title, _PLAIN) for key, title in columns],
    rows,
    'Readers: their label. Malignancy: the predicted probability.',
    'Nodule',
  )


def _duration(seconds):
  for size, unit in ((3600, 'h'), (60, 'min')):
    if seconds >= size:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds:.0f} s'
