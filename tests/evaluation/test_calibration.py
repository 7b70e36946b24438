"""Calibration agrees with scikit-learn and with sums by hand."""

import numpy as np
import pytest
from scipy import special
from sklearn import calibration as sklearn_calibration
from sklearn import linear_model
from sklearn import metrics as sklearn_metrics

from mtnet_jax.evaluation import calibration


@pytest.fixture(name='drawn')
def _drawn():
  rng = np.random.default_rng(0)
  # Rounded to two digits, so that some lie on the edges of bins.
  scores = np.round(rng.beta(0.7, 1.2, 200), 2)
  return scores, (rng.random(200) < scores**2).astype(int)


def test_curve_agrees_with_scikit_learn(drawn):
  scores, labels = drawn
  assert np.isin(scores, np.arange(1, 10) / 10).any()
  predicted, observed, total = calibration.curve(scores, labels, np.ones(200))
  expected = sklearn_calibration.calibration_curve(
    labels, scores, n_bins=calibration.NUM_BINS
  )
  filled = total > 0
  np.testing.assert_allclose(observed[filled], expected[0])
  np.testing.assert_allclose(predicted[filled], expected[1])
  assert total.sum() == 200


def test_brier_agrees_with_scikit_learn(drawn):
  scores, labels = drawn
  assert calibration.brier(scores, labels, np.ones(200)) == pytest.approx(
    sklearn_metrics.brier_score_loss(labels, scores)
  )


def test_expected_error_by_hand():
  # Bin (0, .1]: .1 .1 .1 .1, one of them malignant: |.25 - .1|.
  # Bin (.8, .9]: .9 and .9, one of them malignant: |.5 - .9|.
  scores = [0.1, 0.9, 0.1, 0.1, 0.9, 0.1]
  labels = [0, 1, 1, 0, 0, 0]
  expected = 4 / 6 * 0.15 + 2 / 6 * 0.4
  assert calibration.expected_error(scores, labels, np.ones(6)) == (
    pytest.approx(expected)
  )


def test_errors_of_one_bin_do_not_cancel_those_of_another():
  scores, labels = np.array([0.25, 0.75]), np.array([1, 0])
  error = calibration.expected_error(scores, labels, np.ones(2))
  assert error == pytest.approx(0.75)


def test_weights_are_repetitions(drawn):
  scores, labels = drawn
  weights = np.random.default_rng(1).integers(0, 3, (4, 200))
  for function in (calibration.expected_error, calibration.brier):
    found = function(scores, labels, weights)
    assert found.shape == (4,)
    for row, value in zip(weights, found, strict=True):
      repeated = np.repeat(scores, row), np.repeat(labels, row)
      assert value == pytest.approx(function(*repeated, np.ones(row.sum())))


def test_the_error_is_nan_without_weight():
  for function in (calibration.expected_error, calibration.brier):
    assert np.isnan(function([0.5], [1], np.zeros(1)))


def test_chance_keeps_the_error_above_0():
  # For one bin of n nodules at 1/2, the mean of |binomial share - 1/2| is
  # about sqrt(1 / (2 pi n)).
  errors = calibration.expected_error_if_calibrated(
    np.full(400, 0.5), seed=0, replicates=2000
  )
  assert errors.mean() == pytest.approx(
    np.sqrt(1 / (2 * np.pi * 400)), rel=0.05
  )


def test_the_bias_of_resampling_is_removed(drawn):
  scores, labels = drawn
  weights = np.random.default_rng(2).multinomial(
    200, np.full(200, 1 / 200), size=500
  )
  value = calibration.expected_error(scores, labels, np.ones(200))
  raw = calibration.expected_error(scores, labels, weights)
  centred = calibration.centred(value, raw)
  # Resamples have larger errors, by much more than the mean's standard error.
  assert raw.mean() - value > 5 * raw.std() / np.sqrt(500)
  assert centred.mean() == pytest.approx(value, rel=0.01)
  assert centred.std() == pytest.approx(raw.std(), rel=0.05)
  assert (calibration.centred(0.01, np.array([0.0, 0.1])) >= 0).all()


def test_temperature_agrees_with_scikit_learn():
  """Logistic regression on the logit, without intercept or penalty."""
  rng = np.random.default_rng(1)
  true = special.expit(rng.normal(0, 1, 400))
  labels = (rng.random(400) < true).astype(int)
  scores = special.expit(2.5 * special.logit(true))
  model = linear_model.LogisticRegression(C=np.inf, fit_intercept=False)
  model.fit(special.logit(scores)[:, None], labels)
  found = calibration.fit_temperature(scores, labels)
  np.testing.assert_allclose(found, 1 / model.coef_[0, 0], rtol=1e-3)
  assert 2 < found < 3


def test_tempered_probabilities_by_hand():
  # The logit of 0.8 is log 4: half of it is log 2.
  scores = np.float32([0.8, 0.5, 0.0, 1.0])
  found = calibration.tempered(scores, 2.0)
  np.testing.assert_allclose(found[:2], [2 / 3, 0.5], rtol=1e-6)
  assert 0 < found[2] < 1e-4
  assert 1 > found[3] > 1 - 1e-4
  np.testing.assert_array_equal(calibration.tempered(scores, 1.0), scores)
