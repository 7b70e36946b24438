"""Figures of the classifier: ROC, precision-recall, calibration, confusion.

Each takes what `scores.malignancy_scores` returns, without the nodules that
have no label; estimates in legends are of `scores.summarise`.
"""

import numpy as np
from sklearn import metrics as sklearn_metrics

from mtnet_jax import metrics
from mtnet_jax.evaluation import calibration
from mtnet_jax.reports import figures
from mtnet_jax.reports import tables

_STYLES = {
  'classification': (figures.BLUE, '-'),
  'diameter_only': (figures.ORANGE, '--'),
}


def roc(labels, scores, summary, *, names, simulated):
  """ROC curves; crosses mark the threshold, with the interval of both rates.

  Args:
    labels: (N,) of 0 and 1, both present.
    scores: name -> (N,) probabilities.
    summary: of `scores.summarise`.
    names: of `tables.network_names`.
    simulated: whether the CT is.
  """
  figure, (ax,) = figures.with_axes('ROC of malignancy', simulated=simulated)
  ax.plot([0, 1], [0, 1], color='0.7', linestyle=':', linewidth=1)
  for name, values in scores.items():
    color, line = _STYLES[name]
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(labels, values)
    ax.plot(
      false_rate,
      true_rate,
      color=color,
      linestyle=line,
      label=_label(name, names, 'AUC', summary[name]['auc']),
    )
    specificity, across = figures.values_and_bars(
      [summary[name]['specificity']]
    )
    sensitivity, up = figures.values_and_bars([summary[name]['sensitivity']])
    ax.errorbar(
      1 - specificity,
      sensitivity,
      xerr=across[::-1],  # of 1 - specificity
      yerr=up,
      fmt='o',
      color=color,
      capsize=2,
      linewidth=1,
    )
  ax.legend(loc='lower right', fontsize=7.5)
  _unit_square(ax, '1 - specificity', 'sensitivity')
  return figure


def precision_recall(labels, scores, summary, *, names, simulated):
  """Precision-recall curves over the share of malignant nodules.

  Args:
    labels, scores, summary, names, simulated: as in `roc`.
  """
  figure, (ax,) = figures.with_axes(
    'precision and recall of malignancy', simulated=simulated
  )
  share = np.mean(labels)
  ax.axhline(share, color='0.7', linestyle=':', linewidth=1)
  ax.text(0.01, share + 0.015, 'share of malignant', fontsize=7.5, color='0.4')
  for name, values in scores.items():
    color, line = _STYLES[name]
    precision, recall, _ = sklearn_metrics.precision_recall_curve(
      labels, values
    )
    area = summary['probabilities'][name]['average_precision']
    ax.step(
      recall,
      precision,
      where='pre',
      color=color,
      linestyle=line,
      label=_label(name, names, 'AP', area),
    )
  ax.legend(loc='lower left', fontsize=7.5)
  _unit_square(ax, 'recall (sensitivity)', 'precision')
  return figure


def reliability(labels, scores, summary, weights, *, names, simulated):
  """Share of malignant nodules by predicted probability, and how many.

  Args:
    labels, scores, summary, names, simulated: as in `roc`.
    weights: of `bootstrap.patient_weights`, from which the intervals are.
  """
  figure, (above, below) = figures.with_axes(
    'calibration of malignancy',
    simulated=simulated,
    rows=2,
    sharex=True,
    height_ratios=(3, 1),
  )
  above.plot([0, 1], [0, 1], color='0.7', linestyle=':', linewidth=1)
  centres = (np.arange(calibration.NUM_BINS) + 0.5) / calibration.NUM_BINS
  width = 0.42 / calibration.NUM_BINS
  for position, (name, values) in enumerate(scores.items()):
    color, _ = _STYLES[name]
    predicted, observed, count = calibration.curve(
      values, labels, np.ones(len(labels))
    )
    filled = count > 0
    bars = None
    if weights is not None:
      _, replicates, _ = calibration.curve(values, labels, weights)
      low, high = np.nanquantile(replicates[:, filled], (0.025, 0.975), axis=0)
      middle = observed[filled]
      bars = np.maximum([middle - low, high - middle], 0)
    error = summary['probabilities'][name]['calibration_error']
    above.errorbar(
      predicted[filled],
      observed[filled],
      yerr=bars,
      fmt='o-' if position == 0 else 's--',
      markersize=4,
      capsize=2,
      linewidth=1,
      color=color,
      label=_label(name, names, 'ECE', error),
    )
    below.bar(centres + (position - 0.5) * width, count, width, color=color)
  # Room for the legend above what can be.
  above.set(ylabel='share malignant', xlim=(0, 1), ylim=(-0.02, 1.25))
  above.set_yticks(np.linspace(0, 1, 6))
  above.legend(loc='upper left', fontsize=7.5)
  below.set(xlabel='predicted probability', ylabel='nodules')
  return figure


def confusion(labels, called, summary, *, names, simulated):
  """Counts of readers' labels against the classifier's calls.

  Args:
    labels: (N,) of 0 and 1.
    called: (N,) of 0 and 1.
    summary: its sensitivity and specificity stand below the counts.
    names, simulated: as in `roc`.
  """
  figure, (ax,) = figures.with_axes(
    f'{names["class"]} at a probability of {metrics.THRESHOLD}',
    simulated=simulated,
  )
  ax.grid(False)
  counts = sklearn_metrics.confusion_matrix(labels, called, labels=(0, 1))
  rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
  ax.imshow(counts / rows, cmap='Blues', vmin=0, vmax=1)
  right = ('specificity', 'sensitivity')
  for row in (0, 1):
    for column in (0, 1):
      text = str(counts[row, column])
      if row == column:
        found = summary['classification'][right[row]]
        text += f'\n{right[row]}\n{tables.cell_text(found, "fraction")}'
      ax.text(
        column,
        row,
        text,
        ha='center',
        va='center',
        color='w' if counts[row, column] > 0.5 * rows[row, 0] else 'k',
      )
  words = [metrics.LABELS[label] for label in (0, 1)]
  ax.set_xticks((0, 1), words)
  ax.set_yticks((0, 1), words, rotation=90, va='center')
  ax.set(xlabel=names['class'], ylabel='readers')
  return figure


def _label(name, names, metric, estimate):
  """'Class-net, AUC 0.891 (0.848-0.929)'."""
  title = names['class'] if name == 'classification' else 'Diameter only'
  return f'{title}, {metric} {tables.cell_text(estimate, "fraction")}'


def _unit_square(ax, xlabel, ylabel):
  ax.set(
    xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02), aspect='equal'
  )
