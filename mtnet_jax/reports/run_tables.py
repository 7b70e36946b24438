"""The report's own tables: results, malignancy, readers, groups, training."""

from mtnet_jax import metrics
from mtnet_jax.data import dataset_names
from mtnet_jax.reports import paper
from mtnet_jax.reports import tables


def _plain(*keys_and_titles):
  return [tables.Column(*names, 'plain') for names in keys_and_titles]


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
    _plain(*((key, key) for key in columns)),
    [
      tables.Row(split, [count[key] for key in columns], 'counts')
      for split, count in counts.items()
    ],
    f'Split {dataset_names.how_split(dataset)}. Open: the readers disagree, so'
    ' that there is no label.',
    'Split',
  )


def segmentation(summary, strategy='mtnet'):
  """Masks: means over nodules, pooled pixels, the paper, the difference.

  Args:
    summary: of `scores.summarise`.
    strategy: of the config.
  """
  columns = tables.SEGMENTATION
  tree, names = summary['segmentation'], tables.network_names(strategy)
  rows = []
  for name in ('coarse', 'fine'):
    found = tree.get(name)
    if found is None and strategy != 'mtnet':  # It has no such network.
      continue
    rows.append(tables.row(names[name], found, columns))
    if found is not None:
      pooled = found['pooled']
      rows.append(tables.row('pooled pixels', pooled, columns, 'pooled'))
    rows += _published(strategy, name, columns)
  if 'fine_minus_coarse' in tree:
    change = tree['fine_minus_coarse']
    rows.append(tables.row('Fine - coarse', change, columns, 'difference'))
  return tables.Table(
    'segmentation',
    'segmentation of the test nodules',
    columns,
    rows,
    'DI Dice, JA Jaccard index, ACC accuracy, SPE specificity of pixels.',
    'Network',
  )


def classification(summary, strategy='mtnet'):
  """Benign or malignant, beside the paper and the diameter alone.

  Args:
    summary, strategy: as in `segmentation`.
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
    ' specificity; a nodule is called malignant from a probability of'
    f' {metrics.THRESHOLD} on. Diameter only: logistic regression on the'
    " readers' diameter, fitted to the training nodules.",
    'Classifier',
  )


def _published(strategy, output, columns):
  """The paper's row, if it has one."""
  values = paper.STRATEGIES.get(strategy, {}).get(output)
  if values:
    yield tables.row('paper, real CT', values, columns, 'paper')


def _classifiers(name):
  """(key in the summary, title, kind) of the rows about classifiers."""
  return (
    ('classification', name, 'nodules'),
    ('diameter_only', 'Diameter only', 'nodules'),
    (
      'classification_minus_diameter_only',
      f'{name} - diameter only',
      'difference',
    ),
  )


def probabilities(summary, names):
  """At any threshold: average precision, calibration error, Brier."""
  tree = summary['probabilities']
  columns = [
    tables.Column(key, title, 'fraction')
    for key, title in (
      ('average_precision', 'AP'),
      ('calibration_error', 'ECE'),
      ('brier', 'Brier score'),
      ('calibration_error_if_calibrated', 'ECE if calibrated'),
    )
  ]
  # Of a difference, or without resampling.
  undefined = {'calibration_error_if_calibrated': {'value': None, 'ci95': None}}
  rows = [
    tables.row(title, {**undefined, **tree[name]}, columns, kind)
    for name, title, kind in _classifiers(names['class'])
    if name in tree
  ]
  return tables.Table(
    'probabilities',
    'probabilities of malignancy, regardless of the threshold',
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
    _plain(*((f'called_{word}', f'called {word}') for word in words)),
    rows,
    head='Nodules',
  )


def readers(summary, names):
  """The readers' agreement with each other, and the networks' with them."""
  tree = summary['readers']
  masks = [name for name in ('coarse', 'fine') if name in tree]
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
    stages: stage name -> 'title', 'metric' and 'metric_name'.
  """
  rows = []
  for name, history in histories.items():
    stage, kept = stages[name], kept_row(history)
    cells = [
      len(history),
      kept['epoch'],
      stage['metric_name'],
      f'{kept[stage["metric"]]:.3f}',
      _duration(sum(row['seconds'] for row in history)),
    ]
    rows.append(tables.Row(stage['title'], cells, 'counts'))
  return tables.Table(
    'training',
    'the stages of training',
    _plain(
      ('epochs', 'Epochs'),
      ('kept_epoch', 'Kept epoch'),
      ('metric', 'Validation metric'),
      ('value', 'Value'),
      ('time', 'Time'),
    ),
    rows,
    'Kept: the epoch of the highest validation metric. It is a single number of'
    ' the split by which it was chosen, and no result.',
    'Stage',
  )


def examples(chosen, names):
  """The nodules of the figure, of `examples.collect`."""
  columns = [
    ('rank', 'Rank'),
    ('diameter_mm', 'Diameter, mm'),
    ('readers', 'Readers'),
  ]
  numbers = []  # keys of the records
  if chosen[0].cam is not None:
    columns.append(('malignancy', 'Malignancy'))
    numbers.append('malignancy_probability')
  for mask in chosen[0].masks:
    columns.append((f'{mask}_dice', f'{names[mask]} Dice'))
    numbers.append(f'{mask}_dice')
  rows = []
  for rank, record, *_ in chosen:
    cells = [
      rank,
      f'{record["diameter_mm"]:.1f}',
      metrics.LABELS[record['label']],
      *(f'{record[key]:.3f}' for key in numbers),
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


def kept_row(history):
  """The epoch whose variables were kept: the last that was the best yet."""
  return [row for row in history if row['best']][-1]


def _duration(seconds):
  for size, unit in ((3600, 'h'), (60, 'min')):
    if seconds >= size:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds:.0f} s'
