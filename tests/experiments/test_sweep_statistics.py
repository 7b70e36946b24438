"""Points of a sweep compared with its reference."""

import made_records
import numpy as np
import pytest

from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_statistics
from mtnet_jax.system import errors


def point(name):
  return sweep_plan.Point(name, name, {}, None)


def by_output(results):
  return {(result.point, result.output): result for result in results}


def test_differences_on_the_same_nodules_are_paired():
  # Every nodule is better by exactly 0.1, so every resample is, too, although
  # the values of the nodules range over 0.5.
  records = {
    'a': made_records.make_records(),
    'b': made_records.make_records(shift=0.1),
  }
  found = by_output(
    sweep_statistics.compare(
      [point('a'), point('b')], records, reference='a', outputs=('fine',)
    )
  )
  assert found['a', 'fine'].differences is None
  low, high = found['a', 'fine'].estimates['jaccard']['ci95']
  assert high - low > 0.05
  result = found['b', 'fine']
  assert result.paired
  np.testing.assert_allclose(
    result.differences['jaccard']['ci95'], [0.1, 0.1], rtol=1e-9
  )
  assert sweep_statistics.verdict(result.differences['jaccard']) == 'higher'


def test_differences_on_other_nodules_are_unpaired():
  others = [
    {**record, 'nodule_id': f'm{i}', 'patient_id': f'q{i // 2}'}
    for i, record in enumerate(made_records.make_records())
  ]
  found = by_output(
    sweep_statistics.compare(
      [point('a'), point('b')],
      {'a': made_records.make_records(), 'b': others},
      reference='a',
    )
  )
  result = found['b', 'fine']
  difference = result.differences['jaccard']
  assert not result.paired and difference['value'] == 0
  # The interval of a difference of two independent means is sqrt(2) times as
  # wide as that of one mean.
  one, both = (
    np.ptp(estimate['ci95'])
    for estimate in (found['a', 'fine'].estimates['jaccard'], difference)
  )
  assert both / one == pytest.approx(np.sqrt(2), rel=0.15)
  assert sweep_statistics.verdict(difference) == 'no difference shown'


def test_malignancy_is_compared_on_the_same_resamples():
  records = {
    'a': made_records.make_records(),
    'b': made_records.make_records(first=5),
  }
  found = by_output(
    sweep_statistics.compare(
      [point('a'), point('b')], records, reference='a', outputs=('class',)
    )
  )
  assert set(found) == {('a', 'class'), ('b', 'class')}
  assert found['a', 'class'].estimates['auc'] == {'value': 1, 'ci95': [1, 1]}
  # 15 of 20 malignant nodules have 0.9 and 5 have 0.1; the benign ones have it
  # the other way round. P(higher) = 0.75^2 and P(equal) = 2 * 0.75 * 0.25, so
  # the AUC is 0.5625 + 0.375 / 2 = 0.75.
  auc = found['b', 'class'].differences['auc']
  assert auc['value'] == pytest.approx(-0.25)
  low, high = auc['ci95']
  assert low < -0.25 < high < 0
  assert sweep_statistics.verdict(auc) == 'lower'


def test_masks_are_compared_with_the_last_one_of_the_reference():
  records = {
    'a': made_records.make_records(shift=0.1),
    'b': made_records.make_records(shift=0.2),
  }
  results = sweep_statistics.compare(
    [point('a'), point('b')], records, reference='a'
  )
  found = by_output(results)
  assert found['a', 'coarse'].differences['jaccard']['value'] == pytest.approx(
    -0.1
  )
  assert found['b', 'fine'].differences['jaccard']['value'] == pytest.approx(
    0.1
  )


def test_a_shared_coarse_net_is_shown_once():
  records = {
    'a': made_records.make_records(),
    'b': made_records.make_records(shift=0.1),
  }
  for shared in ((), ('a', 'b')):
    found = by_output(
      sweep_statistics.compare(
        [point('a'), point('b')],
        records,
        reference='a',
        outputs=('coarse', 'fine'),
        same_coarse_net=shared,
      )
    )
    assert set(found) == {
      ('a', 'coarse'),
      ('a', 'fine'),
      ('b', 'fine'),
      *(() if shared else (('b', 'coarse'),)),
    }


def test_a_point_without_a_fine_net_is_compared_by_its_coarse_net():
  records = {
    'a': made_records.make_records(masks=('coarse',)),
    'b': made_records.make_records(),
  }
  found = by_output(
    sweep_statistics.compare([point('b'), point('a')], records, reference='b')
  )
  assert set(found) == {
    *(('b', output) for output in ('coarse', 'fine', 'class')),
    ('a', 'coarse'),
    ('a', 'class'),
  }
  assert found['a', 'coarse'].differences['jaccard']['value'] == 0


def test_folds_are_pooled():
  parts = {}
  for fold in range(3):
    parts[f'fold{fold}'] = [
      {**record, 'nodule_id': f'{fold}_{record["nodule_id"]}'}
      for record in made_records.make_records(shift=fold / 10)
    ]
  plan = [point(name) for name in parts]
  results = sweep_statistics.fold_results(plan, parts)
  found = by_output(results)
  pooled = found[sweep_statistics.POOLED, 'fine']
  assert pooled.nodules == 6 * made_records.PATIENTS
  single = [found[name, 'fine'].estimates['jaccard']['value'] for name in parts]
  assert pooled.estimates['jaccard']['value'] == pytest.approx(np.mean(single))
  low, high, deviation = sweep_statistics.spread(results, 'fine')
  # The values differ by 0, 0.1 and 0.2: their standard deviation is 0.1.
  assert (high - low, deviation) == pytest.approx((0.2, 0.1))


def test_folds_that_share_a_nodule_are_refused():
  plan = [point('fold0'), point('fold1')]
  with pytest.raises(errors.InputError, match='two folds'):
    sweep_statistics.fold_results(
      plan,
      {
        'fold0': made_records.make_records(),
        'fold1': made_records.make_records(),
      },
    )


def test_one_patient_gives_no_interval_and_no_verdict():
  records = {
    'a': made_records.make_records()[:2],
    'b': made_records.make_records(shift=0.1)[:2],
  }
  found = by_output(
    sweep_statistics.compare([point('a'), point('b')], records, reference='a')
  )
  difference = found['b', 'fine'].differences['jaccard']
  assert difference['value'] == pytest.approx(0.1)
  assert sweep_statistics.verdict(difference) == 'no interval'
