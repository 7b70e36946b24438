"""Draws ROC, precision-recall and calibration curves, and the confusion matrix.

All functions take labelled nodules only. Probabilities come from
`scores.malignancy_scores`, and the estimates in the legends from
`scores.summarise`.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import calibration
from mtnet_jax.reports import figures
from mtnet_jax.reports import tables

_STYLES = {
  'classification': (figures.BLUE, '-'),
  'diameter_only': (figures.ORANGE, '--'),
}


def roc(
  labels: np.ndarray,
  scores: Mapping[str, np.ndarray],
  summary: Mapping[str, Any],
  *,
  names: Mapping[str, str],
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws ROC curves; a marker at the threshold has intervals of both rates.

  Args:
    labels: (N,) of 0 and 1, both present.
    scores: classifier -> (N,) probabilities.
    summary: from `scores.summarise`.
    names: from `tables.network_names`.
    simulated: whether the CT is simulated.
  """
  # Its import takes seconds, which only a page with these figures needs.
  from sklearn import metrics as sklearn_metrics

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
      xerr=across[::-1],  # The axis is 1 - specificity: the ends swap.
      yerr=up,
      fmt='o',
      color=color,
      capsize=2,
      linewidth=1,
    )
  ax.legend(loc='lower right', fontsize=7.5)
  _unit_square(ax, '1 - specificity', 'sensitivity')
  return figure


def precision_recall(
  labels: np.ndarray,
  scores: Mapping[str, np.ndarray],
  summary: Mapping[str, Any],
  *,
  names: Mapping[str, str],
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws precision-recall curves, and the proportion of malignant nodules.

  Args:
    labels: (N,) of 0 and 1, both present.
    scores: classifier -> (N,) probabilities.
    summary: from `scores.summarise`.
    names: from `tables.network_names`.
    simulated: whether the CT is simulated.
  """
  from sklearn import metrics as sklearn_metrics

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


def reliability(
  labels: np.ndarray,
  scores: Mapping[str, np.ndarray],
  summary: Mapping[str, Any],
  weights: np.ndarray | None,
  *,
  names: Mapping[str, str],
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws the proportion of malignant nodules by predicted probability.

  A histogram below shows the number of nodules in each bin.

  Args:
    labels: (N,) of 0 and 1, both present.
    scores: classifier -> (N,) probabilities.
    summary: from `scores.summarise`.
    weights: from `bootstrap.patient_weights`, for the intervals; None draws
      none.
    names: from `tables.network_names`.
    simulated: whether the CT is simulated.
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
    predicted, observed, num_nodules = calibration.curve(
      values, labels, np.ones(len(labels))
    )
    filled = num_nodules > 0
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
    below.bar(
      centres + (position - 0.5) * width, num_nodules, width, color=color
    )
  # The legend needs room above 1, the largest proportion.
  above.set(ylabel='share malignant', xlim=(0, 1), ylim=(-0.02, 1.25))
  above.set_yticks(np.linspace(0, 1, 6))
  above.legend(loc='upper left', fontsize=7.5)
  below.set(xlabel='predicted probability', ylabel='nodules')
  return figure


def confusion(
  labels: np.ndarray,
  predictions: np.ndarray,
  summary: Mapping[str, Any],
  *,
  names: Mapping[str, str],
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws the confusion matrix of readers' labels and predictions.

  Args:
    labels: (N,) of 0 and 1, the readers'.
    predictions: (N,) of 0 and 1, the classifier's.
    summary: from `scores.summarise`; its sensitivity and specificity are shown
      below the counts.
    names: from `tables.network_names`.
    simulated: whether the CT is simulated.
  """
  from sklearn import metrics as sklearn_metrics

  figure, (ax,) = figures.with_axes(
    f'{names["class"]} at a probability of {metrics.THRESHOLD}',
    simulated=simulated,
  )
  ax.grid(False)
  counts = sklearn_metrics.confusion_matrix(labels, predictions, labels=(0, 1))
  rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
  ax.imshow(counts / rows, cmap='Blues', vmin=0, vmax=1)
  rates = ('specificity', 'sensitivity')
  for row in (0, 1):
    for column in (0, 1):
      text = str(counts[row, column])
      if row == column:
        rate = summary['classification'][rates[row]]
        text += f'\n{rates[row]}\n{tables.cell_text(rate, "fraction")}'
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
  """Returns a legend's text, such as 'Class-net, AUC 0.891 (0.848-0.929)'."""
  title = names['class'] if name == 'classification' else 'Diameter only'
  return f'{title}, {metric} {tables.cell_text(estimate, "fraction")}'


def _unit_square(ax: mpl_axes.Axes, xlabel: str, ylabel: str) -> None:
  ax.set(
    xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.02), aspect='equal'
  )
