"""Makes the table of the training stages."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from mtnet_jax.reports import tables


def make(
  histories: Mapping[str, Sequence[Mapping[str, Any]]],
  stages: Mapping[str, Mapping[str, str]],
) -> tables.Table:
  """Returns the epochs, the kept epoch and the time of each stage.

  Args:
    histories: stage name -> a row per epoch, from `trainer.Trainer.run`.
    stages: stage name -> 'title', 'metric' (the key in `histories` of the
      metric that selects the best epoch) and 'metric_name'.
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
    [
      tables.Column('epochs', 'Epochs', 'plain'),
      tables.Column('kept_epoch', 'Kept epoch', 'plain'),
      tables.Column('metric', 'Validation metric', 'plain'),
      tables.Column('value', 'Value', 'plain'),
      tables.Column('time', 'Time', 'plain'),
    ],
    rows,
    'Kept epoch: the one with the highest validation metric. The value is not a'
    ' result, as it was used to choose the epoch.',
    'Stage',
  )


def kept_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
  """Returns the row of the epoch whose variables were kept."""
  # 'best' is true where an epoch was better than all epochs before it.
  return [row for row in history if row['best']][-1]


def _duration(seconds):
  for size, unit in ((3600, 'h'), (60, 'min')):
    if seconds >= size:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds:.0f} s'
