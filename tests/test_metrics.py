"""Metrics against values derived by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mtnet_jax import metrics


def _mask(*rows):
  return np.asarray(rows, np.uint8)[None, :, :, None]


def _one(values):
  return {key: float(x[0]) for key, x in values.items()}


def test_segmentation_by_hand():
  # TP 2, FP 1, FN 1, TN 2.
  pred = _mask([1, 1, 1], [0, 0, 0])
  truth = _mask([1, 1, 0], [1, 0, 0])
  assert _one(metrics.pixel_counts(pred, truth)) == {
    'overlap': 2,
    'predicted': 3,
    'truth': 3,
    'pixels': 6,
  }
  assert _one(metrics.segmentation_metrics(pred, truth)) == pytest.approx(
    {
      'dice': 2 * 2 / (3 + 3),
      'jaccard': 2 / 4,
      'accuracy': 4 / 6,
      'recall': 2 / 3,
      'specificity': 2 / 3,
    }
  )


def test_recall_is_not_precision():
  # TP 1, FP 2, FN 0, TN 1: precision 1/3, recall 1, specificity 1/3.
  values = _one(
    metrics.segmentation_metrics(_mask([1, 1], [1, 0]), _mask([1, 0], [0, 0]))
  )
  assert values == pytest.approx(
    {
      'dice': 2 / 4,
      'jaccard': 1 / 3,
      'accuracy': 2 / 4,
      'recall': 1,
      'specificity': 1 / 3,
    }
  )


def test_both_empty_is_perfect_but_has_no_recall():
  empty = np.zeros((1, 2, 2, 1))
  values = _one(metrics.segmentation_metrics(empty, empty))
  assert np.isnan(values.pop('recall'))
  assert values == {
    'dice': 1,
    'jaccard': 1,
    'accuracy': 1,
    'specificity': 1,
  }


def test_one_empty_is_zero():
  empty, full = np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1))
  missed = _one(metrics.segmentation_metrics(empty, full))
  assert (missed['dice'], missed['jaccard'], missed['recall']) == (0, 0, 0)
  # Without background pixels, specificity has a denominator of 0.
  assert np.isnan(missed['specificity'])
  invented = _one(metrics.segmentation_metrics(full, empty))
  assert (invented['dice'], invented['jaccard']) == (0, 0)
  assert invented['specificity'] == 0
  assert np.isnan(invented['recall'])


def test_segmentation_agrees_with_scikit_learn():
  rng = np.random.default_rng(0)
  truth = rng.random((6, 7, 5, 1)) < 0.4
  pred = truth ^ (rng.random(truth.shape) < 0.2)
  values = metrics.segmentation_metrics(pred, truth)
  assert set(values) == set(metrics.SEGMENTATION)
  for i in range(6):
    t, p = truth[i].ravel(), pred[i].ravel()
    assert {key: x[i] for key, x in values.items()} == pytest.approx(
      {
        'dice': sklearn_metrics.f1_score(t, p),
        'jaccard': sklearn_metrics.jaccard_score(t, p),
        'accuracy': sklearn_metrics.accuracy_score(t, p),
        'recall': sklearn_metrics.recall_score(t, p),
        'specificity': sklearn_metrics.recall_score(t, p, pos_label=0),
      }
    )


def test_pooled_counts_are_the_metrics_of_one_long_image():
  rng = np.random.default_rng(1)
  truth, pred = rng.random((2, 5, 4, 4, 1)) < 0.4
  counts = metrics.pixel_counts(pred, truth)
  pooled = metrics.segmentation_from_counts(
    {key: x.sum() for key, x in counts.items()}
  )
  long = metrics.segmentation_metrics(
    pred.reshape(1, 20, 4, 1), truth.reshape(1, 20, 4, 1)
  )
  for key, value in pooled.items():
    assert float(value) == pytest.approx(float(long[key][0])), key


def test_counts_do_not_overflow_the_masks_type():
  full = np.ones((1, 64, 64, 1), np.uint8)
  assert _one(metrics.pixel_counts(full, full))['overlap'] == 4096


def test_differing_shapes_are_refused():
  with pytest.raises(ValueError, match='same shape'):
    metrics.pixel_counts(np.zeros((2, 3, 3, 1)), np.zeros((2, 3, 3)))


def test_classification_by_hand():
  # A score of at least .5 counts as malignant. Of the malignant nodules, .9, .5
  # and .2, two are found. Of the benign ones, .4 and .6, one is. The score of
  # the malignant nodule is higher in 3 of 6 pairs: twice for .9, once for .5.
  scores = [0.9, 0.5, 0.2, 0.4, 0.6]
  labels = [1, 1, 1, 0, 0]
  assert metrics.classification_metrics(scores, labels) == pytest.approx(
    {
      'accuracy': 3 / 5,
      'auc': 3 / 6,
      'sensitivity': 2 / 3,
      'specificity': 1 / 2,
    }
  )


def test_threshold_changes_everything_except_the_auc():
  # At .3, two malignant nodules are found, .9 and .5, and both benign ones
  # count as malignant.
  values = metrics.classification_metrics(
    [0.9, 0.5, 0.2, 0.4, 0.6], [1, 1, 1, 0, 0], threshold=0.3
  )
  assert values == pytest.approx(
    {
      'accuracy': 2 / 5,
      'auc': 3 / 6,
      'sensitivity': 2 / 3,
      'specificity': 0,
    }
  )


def test_classification_agrees_with_scikit_learn():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 60)
  # Rounded, so that some scores are equal.
  scores = np.round(0.3 * labels + 0.7 * rng.random(60), 1)
  called = scores >= 0.5
  assert metrics.classification_metrics(scores, labels) == pytest.approx(
    {
      'accuracy': sklearn_metrics.accuracy_score(labels, called),
      'auc': sklearn_metrics.roc_auc_score(labels, scores),
      'sensitivity': sklearn_metrics.recall_score(labels, called),
      'specificity': sklearn_metrics.recall_score(labels, called, pos_label=0),
    }
  )


def _equations(pred, truth):
  """Computes equations (7)-(11) for one image, with sets as in the paper."""
  s, gt = set(np.flatnonzero(pred)), set(np.flatnonzero(truth))
  image = pred.size
  union, both = len(s | gt), len(s & gt)
  return {
    'dice': 2 * both / (len(s) + len(gt)),
    'jaccard': both / (len(s) + len(gt) - both),
    'accuracy': (image - union + both) / image,
    'recall': both / len(gt),
    'specificity': (image - union) / (image - len(gt)),
  }


@pytest.mark.parametrize('share', (0.02, 0.3, 0.9))
def test_segmentation_is_equations_7_to_11(share):
  rng = np.random.default_rng(0)
  truth, pred = rng.random((2, 20, 16, 16, 1)) < share
  values = metrics.segmentation_metrics(pred, truth)
  for i in range(20):
    found = {key: x[i] for key, x in values.items()}
    assert found == pytest.approx(_equations(pred[i], truth[i]))


def test_classification_is_equations_4_to_6():
  rng = np.random.default_rng(1)
  for _ in range(20):
    labels, scores = rng.integers(0, 2, 30), rng.random(30)
    pairs = list(zip(scores >= 0.5, labels == 1, strict=True))
    tp, tn = pairs.count((True, True)), pairs.count((False, False))
    fp, fn = pairs.count((True, False)), pairs.count((False, True))
    # By definition, the area is the share of pairs in the right order, where
    # ties count one half.
    higher = np.sign(scores[labels == 1][:, None] - scores[labels == 0])
    assert metrics.classification_metrics(scores, labels) == pytest.approx(
      {
        'accuracy': (tp + tn) / (tp + tn + fp + fn),
        'sensitivity': tp / (tp + fn),
        'specificity': tn / (tn + fp),
        'auc': ((1 + higher) / 2).mean(),
      }
    )


@pytest.mark.parametrize('digits', (1, 15))
def test_areas_agree_with_scikit_learn_whatever_the_weights(digits):
  rng = np.random.default_rng(2)
  labels = rng.integers(0, 2, 50)
  scores = np.round(0.2 * labels + 0.8 * rng.random(50), digits)
  weights = rng.integers(0, 4, (6, 50))
  for ours, theirs in (
    (metrics.area_under_roc, sklearn_metrics.roc_auc_score),
    (metrics.average_precision, sklearn_metrics.average_precision_score),
  ):
    assert ours(scores, labels, weights) == pytest.approx(
      [theirs(labels, scores, sample_weight=row) for row in weights]
    )


def test_average_precision_without_malignant_nodules_is_undefined():
  assert np.isnan(metrics.average_precision([0.1, 0.9], [0, 0], np.ones(2)))


def test_metrics_of_no_nodules_are_undefined():
  values = metrics.classification_metrics([], [], weights=np.ones((3, 0)))
  for value in values.values():
    assert np.isnan(value).all() and value.shape == (3,)


@pytest.mark.parametrize(
  'label, defined, undefined',
  ((1, 'sensitivity', 'specificity'), (0, 'specificity', 'sensitivity')),
)
def test_one_class_has_no_auc(label, defined, undefined):
  values = metrics.classification_metrics([0.2, 0.8], [label] * 2)
  assert np.isnan(values['auc']) and np.isnan(values[undefined])
  assert values[defined] == values['accuracy'] == 0.5


def test_a_class_with_a_weight_of_zero_is_missing():
  values = metrics.classification_metrics(
    [0.2, 0.8], [0, 1], weights=np.array([0, 3])
  )
  assert np.isnan(values['auc']) and np.isnan(values['specificity'])
  assert values['accuracy'] == values['sensitivity'] == 1


def test_weights_are_repetitions():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 40)
  scores = np.round(0.2 * labels + 0.8 * rng.random(40), 2)
  weights = rng.integers(0, 4, 40)
  weighted = metrics.classification_metrics(scores, labels, weights=weights)
  repeated = metrics.classification_metrics(
    np.repeat(scores, weights), np.repeat(labels, weights)
  )
  assert weighted == pytest.approx(repeated)
  assert weighted != pytest.approx(
    metrics.classification_metrics(scores, labels)
  )
