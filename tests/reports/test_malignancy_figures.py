"""Curves derived by hand, with the intervals of the summary."""

import numpy as np

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.reports import malignancy_figures
from mtnet_jax.reports import tables

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = {'classification': np.array([0.1, 0.6, 0.4, 0.9])}
COMMON = {'names': tables.network_names(), 'simulated': True}


def _estimate(value, low, high):
  return {'value': value, 'ci95': [low, high]}


SUMMARY = {
  'classification': {
    'auc': _estimate(0.75, 0.5, 1.0),
    'sensitivity': _estimate(0.5, 0.25, 1.0),
    'specificity': _estimate(0.5, 0.0, 0.75),
  },
  'probabilities': {
    'classification': {
      'average_precision': _estimate(5 / 6, 0.5, 1.0),
      'calibration_error': _estimate(0.35, 0.125, 0.5),
    }
  },
}


def test_roc_by_hand():
  figure = malignancy_figures.roc(LABELS, PROBABILITIES, SUMMARY, **COMMON)
  _, curve, dot, *_ = figure.axes[0].lines
  # From the highest score down: malignant, benign, malignant, benign.
  expected = [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
  np.testing.assert_allclose(curve.get_xydata(), expected)
  np.testing.assert_allclose(dot.get_xydata(), [[0.5, 0.5]])
  assert curve.get_label() == 'Class-net, AUC 0.750 (0.500-1.000)'
  # A specificity of 0 to 0.75 is 0.25 to 1 on the axis 1 - specificity.
  (across, up) = (bars.get_segments()[0] for bars in figure.axes[0].collections)
  np.testing.assert_allclose(across, [[0.25, 0.5], [1.0, 0.5]])
  np.testing.assert_allclose(up, [[0.5, 0.25], [0.5, 1.0]])


def test_precision_recall_by_hand():
  figure = malignancy_figures.precision_recall(
    LABELS, PROBABILITIES, SUMMARY, **COMMON
  )
  ax = figure.axes[0]
  assert ax.lines[0].get_ydata()[0] == 0.5  # share of malignant
  curve = ax.lines[1]
  # The threshold rises from all four called malignant to none.
  np.testing.assert_allclose(
    curve.get_xydata(),
    [[1, 0.5], [1, 2 / 3], [0.5, 0.5], [0.5, 1], [0, 1]],
  )
  assert curve.get_label() == 'Class-net, AP 0.833 (0.500-1.000)'


def test_reliability_by_hand():
  figure = malignancy_figures.reliability(
    np.array([0, 1, 1, 1]),
    {'classification': np.array([0.12, 0.18, 0.71, 0.75])},
    SUMMARY,
    bootstrap.patient_weights(['a', 'b', 'c', 'c'], seed=0),
    **COMMON,
  )
  above, below = figure.axes
  np.testing.assert_allclose(
    above.lines[1].get_xydata(), [[0.15, 0.5], [0.73, 1.0]]
  )
  heights = [bar.get_height() for bar in below.patches]
  assert heights == [0, 2, 0, 0, 0, 0, 0, 2, 0, 0]
  # One of two nodules in the first bin is malignant, and each has its own
  # patient: resamples have any proportion from 0 to 1.
  first, second = above.collections[0].get_segments()
  np.testing.assert_allclose(first[:, 1], [0, 1])
  np.testing.assert_allclose(second[:, 1], [1, 1])
  (legend,) = above.get_legend().get_texts()
  assert legend.get_text() == 'Class-net, ECE 0.350 (0.125-0.500)'


def test_confusion_has_readers_in_rows():
  figure = malignancy_figures.confusion(
    np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), SUMMARY, **COMMON
  )
  ax = figure.axes[0]
  found = {text.get_position(): text.get_text() for text in ax.texts}
  # (1, 0) is column 1, row 0: called malignant, but benign.
  assert found[1, 0] == '1' and found[0, 1] == '0'
  assert found[0, 0] == '2\nspecificity\n0.500 (0.000-0.750)'
  assert found[1, 1] == '1\nsensitivity\n0.500 (0.250-1.000)'
  assert ax.get_ylabel() == 'readers' and ax.get_xlabel() == 'Class-net'
