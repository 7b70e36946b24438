"""Patients are drawn, not nodules, and intervals have their coverage."""

import numpy as np
import pytest

from mtnet_jax.evaluation import bootstrap

_PATIENTS = np.array(['b', 'a', 'c', 'a', 'b', 'a', 'd'])


def test_nodules_of_a_patient_are_drawn_together():
  weights = bootstrap.patient_weights(_PATIENTS, replicates=200)
  assert weights.shape == (200, 7)
  assert np.issubdtype(weights.dtype, np.integer)
  for patient in 'abcd':
    columns = weights[:, _PATIENTS == patient]
    np.testing.assert_array_equal(columns, columns[:, :1] + 0 * columns)
  # Those of different patients are not: a and b differ in some replicate.
  assert (weights[:, 0] != weights[:, 1]).any()


def test_each_replicate_draws_as_many_patients_as_there_are():
  weights = bootstrap.patient_weights(_PATIENTS, replicates=50)
  _, first = np.unique(_PATIENTS, return_index=True)
  np.testing.assert_array_equal(weights[:, first].sum(1), np.full(50, 4))


def test_every_patient_is_drawn_once_on_average():
  weights = bootstrap.patient_weights(_PATIENTS, replicates=4000)
  # Variance of a count is 1 - 1/4, so the mean of 4000 has an s.d. of .014.
  np.testing.assert_allclose(weights.mean(0), np.ones(7), atol=0.06)
  np.testing.assert_allclose(weights.var(0), np.full(7, 0.75), atol=0.08)


def test_weights_follow_the_seed():
  first, again, other = (
    bootstrap.patient_weights(_PATIENTS, seed=seed) for seed in (3, 3, 4)
  )
  assert len(first) == bootstrap.REPLICATES
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@pytest.mark.parametrize('patients', ([], ['a'], ['a', 'a', 'a']))
def test_fewer_than_two_patients_have_no_weights(patients):
  assert bootstrap.patient_weights(patients) is None


def test_mean_by_hand():
  # Replicates weigh (1, 1, 0), (0, 2, 1), (0, 0, 2): means 1.5, 8/3, 4.
  weights = np.array([[1, 1, 0], [0, 2, 1], [0, 0, 2]])
  estimate = bootstrap.mean([1.0, 2.0, 4.0], weights)
  assert estimate['value'] == pytest.approx(7 / 3)
  assert estimate['ci95'] == pytest.approx(
    list(np.quantile([1.5, 8 / 3, 4], (0.025, 0.975)))
  )


def test_mean_leaves_nan_out():
  # Without the second value: 1 and 5; the last replicate holds NaN only.
  weights = np.array([[1, 1, 1], [2, 0, 0], [0, 0, 2], [0, 3, 0]])
  estimate = bootstrap.mean([1.0, np.nan, 5.0], weights)
  assert estimate['value'] == 3
  assert estimate['ci95'] == pytest.approx(
    list(np.quantile([3, 1, 5], (0.025, 0.975)))
  )


def test_mean_of_nothing_is_undefined():
  undefined = {'value': None, 'ci95': None}
  assert bootstrap.mean([np.nan, np.nan], np.ones((4, 2))) == undefined
  assert bootstrap.mean([], np.ones((4, 0))) == undefined


def test_mean_of_one_patient_has_no_interval():
  assert bootstrap.mean([1.0, 3.0], None) == {'value': 2.0, 'ci95': None}


def test_interval_ignores_replicates_that_are_not_finite():
  values = [np.nan, *np.linspace(0, 1, 201), np.nan]
  assert bootstrap.interval(values) == pytest.approx([0.025, 0.975])
  assert bootstrap.interval([np.nan]) is None


def test_estimate_without_value_is_null():
  assert bootstrap.estimate(np.nan, [0.0, 1.0])['value'] is None


def test_interval_covers_the_truth_as_often_as_it_says():
  # 60 patients of 1 to 5 nodules; a patient's nodules share an effect. The
  # true mean is 0.
  rng = np.random.default_rng(0)
  covered = {'patients': 0, 'nodules': 0}
  repetitions = 400
  for seed in range(repetitions):
    patients = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    values = rng.normal(size=60)[patients] + 0.3 * rng.normal(
      size=len(patients)
    )
    for unit, names in (
      ('patients', patients),
      ('nodules', np.arange(len(patients))),
    ):
      weights = bootstrap.patient_weights(names, seed=seed, replicates=300)
      low, high = bootstrap.mean(values, weights)['ci95']
      covered[unit] += low <= 0 <= high
  # 95 % of 400, s.d. 1.1 %; percentile intervals of 60 are slightly too narrow.
  assert 0.91 <= covered['patients'] / repetitions <= 0.98
  # Intervals that treat nodules as independent are much too narrow.
  assert covered['nodules'] / repetitions < 0.85
