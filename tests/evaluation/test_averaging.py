"""The effect of averaging, measured on made-up records."""

import made_records
import made_run
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import averaging
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import outputs
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import members
from mtnet_jax.reports import text as text_lib
from mtnet_jax.storage import workdir

make_records = made_records.make_records


def _with_random_uncertainty(records, seed=0):
  rng = np.random.default_rng(seed)
  for record in records:
    record['fine_uncertainty'] = float(rng.uniform())
    record['malignancy_sd'] = float(rng.uniform())
    record['malignancy_probability'] = float(rng.uniform())
  return records


def test_single_is_the_mean_of_the_runs_and_differences_are_paired():
  # `shift` adds to the fine mask's metrics, `first` patients are misclassified.
  singles = [make_records(), make_records(shift=0.1, first=4)]
  averaged = make_records(shift=0.2)
  tree = averaging.compare(singles, averaged, seed=0)
  fine = {part: tree[part]['fine']['dice'] for part in tree}
  base = np.mean([record['fine_dice'] for record in singles[0]])
  assert fine['single']['value'] == pytest.approx(base + 0.05)
  assert fine['averaged']['value'] == pytest.approx(base + 0.2)
  # The same for every nodule: the interval has no width.
  change = fine['averaged_minus_single']
  assert change['value'] == pytest.approx(0.15)
  assert change['ci95'] == pytest.approx([0.15, 0.15])
  assert np.ptp(fine['averaged']['ci95']) > 0.01
  # The shift of the fine masks has no effect here.
  assert tree['averaged_minus_single']['coarse']['dice']['value'] == 0
  # The second run has 4 of its 20 patients wrong: accuracies 1 and 0.8.
  accuracy = {part: tree[part]['class']['accuracy'] for part in tree}
  assert accuracy['single']['value'] == pytest.approx(0.9)
  assert accuracy['averaged_minus_single']['value'] == pytest.approx(0.1)
  # Half the share of these 4 patients among 20 draws, which is binomial.
  low, high = stats.binom.ppf((0.025, 0.975), 20, 0.2) / 40
  assert accuracy['averaged_minus_single']['ci95'] == pytest.approx([low, high])


def test_one_run_does_not_differ_from_itself():
  single = make_records(first=4)
  tree = averaging.compare([single], single, seed=0)
  for metrics in tree['averaged_minus_single'].values():
    for estimate in metrics.values():
      assert estimate == {'value': 0, 'ci95': [0, 0]}


def test_missing_outputs_are_not_compared():
  records = make_records(masks=('coarse',))
  for record in records:
    del record['malignancy_probability']
  tree = averaging.compare([records], records, seed=0)
  assert [list(part) for part in tree.values()] == [['coarse']] * 3
  assert averaging.uncertainty(records, seed=0) == {}


def test_uncertainty_agrees_with_scipy_and_scikit_learn():
  records = _with_random_uncertainty(make_records())
  records[3]['label'] = -1  # counts for the mask only
  tree = averaging.uncertainty(records, seed=0)

  def column(key, rows):
    return np.array([row[key] for row in rows])

  found = tree['rank_correlation_with_fine_dice']
  dice = column('fine_dice', records)
  weights = bootstrap.patient_weights(column('patient_id', records), seed=0)
  for name in ('fine_uncertainty', 'fine_predicted'):
    values = column(name, records)
    expected = stats.spearmanr(values, dice).statistic
    assert found[name]['value'] == pytest.approx(expected)
    # One replicate, with its nodules repeated.
    drawn = np.repeat(np.arange(len(records)), weights[0])
    replicates = averaging.rank_correlation(values, dice, weights[:50])
    assert replicates.shape == (50,)
    assert replicates[0] == pytest.approx(
      stats.spearmanr(values[drawn], dice[drawn]).statistic
    )

  known = [row for row in records if row['label'] >= 0]
  probability = column('malignancy_probability', known)
  wrong = (probability >= 0.5) != column('label', known)
  found = tree['auc_for_wrong_labels']
  for name, values in (
    ('malignancy_sd', column('malignancy_sd', known)),
    ('nearness_to_half', 1 - abs(probability - 0.5)),
  ):
    assert found[name]['value'] == pytest.approx(
      sklearn_metrics.roc_auc_score(wrong, values)
    )
    low, high = found[name]['ci95']
    assert low < found[name]['value'] < high


def test_uncertainty_that_follows_the_errors():
  records = _with_random_uncertainty(make_records())
  for record in records:
    wrong = record['patient_id'] in {'p0', 'p1', 'p2', 'p3'}
    record['fine_uncertainty'] = 1 - record['fine_dice']
    record['malignancy_probability'] = float(record['label'] != wrong)
    record['malignancy_sd'] = 0.3 if wrong else 0.1

  def found():
    tree = averaging.uncertainty(records, seed=0)
    return (
      tree['rank_correlation_with_fine_dice']['fine_uncertainty'],
      tree['auc_for_wrong_labels']['malignancy_sd'],
    )

  correlation, auc = found()
  assert correlation['ci95'] == pytest.approx([-1, -1])
  assert auc == {'value': 1, 'ci95': [1, 1]}
  # Without any disagreement there is no relation.
  for record in records:
    record['fine_uncertainty'] = record['malignancy_sd'] = 0.0
  correlation, auc = found()
  assert correlation == {'value': None, 'ci95': None}
  assert auc['value'] == 0.5


def test_only_unseen_nodules_count():
  singles = [make_records()]
  averaged = _with_random_uncertainty(make_records(shift=0.1))
  unseen = np.arange(len(averaged)) < 6
  for record in averaged[6:]:
    record['fine_dice'] = 0.0
  tree = averaging.judge(singles, averaged, unseen, seed=0)
  assert (tree['nodules'], tree['patients']) == (6, 3)
  assert tree['averaged_minus_single']['fine']['dice'][
    'value'
  ] == pytest.approx(0.1)
  none = averaging.judge(singles, averaged, unseen & False, seed=0)
  assert none == {'nodules': 0, 'patients': 0}
  assert 'cannot be measured' in _text(none)


def _text(tree):
  return text_lib.averaging(
    tree, runs=2, symmetries=True, strategy='mtnet', simulated=True
  )


def test_the_text_names_what_was_averaged_and_every_interval():
  averaged = _with_random_uncertainty(make_records(shift=0.1))
  everywhere = np.ones(len(averaged), bool)
  singles = [make_records(), make_records()]
  text = _text(averaging.judge(singles, averaged, everywhere, seed=0))
  assert '2 runs x 8 symmetries' in text and 'SIMULATED CT' in text
  assert 'one of the 2 runs, on average' in text
  rows = [line for line in text.splitlines() if 'averaged - single' in line]
  assert len(rows) == 3
  assert rows[1].count('+10.0 (+10.0 to +10.0)') == 5
  for word in ('fine_uncertainty', 'area', 'malignancy_sd', 'nearness'):
    (line,) = (line for line in text.splitlines() if word in line)
    assert ' to ' in line
  alone = [dict(row, patient_id='p') for row in averaged]
  text = _text(averaging.judge([alone], alone, everywhere, seed=0))
  assert 'no intervals with one patient' in text


def test_members_predict_one_after_the_other(monkeypatch):
  hu = np.full((2, 8, 8), -900, np.int16)
  hu[:, 2:4, 1:7] = 50
  bright = (hu > 0).astype(np.uint8)
  nodules = nodules_lib.Nodules(
    image=hu,
    mask=bright,
    votes=bright,
    label=np.array([0, 1]),
    info={'nodule_id': np.array(['a', 'b'])},
    simulated=True,
  )

  def predict(config, variables, nodules, *, progress):
    """Gives 1 in the upper half, 0.25 below; `variables` is the malignancy."""
    confidence = np.where(np.arange(8)[:, None] < 4, 1.0, 0.25)
    return {
      'fine': confidence * (nodules.image > 0),
      'class': np.full(len(nodules), variables),
    }

  monkeypatch.setattr(outputs, 'predict', predict)
  monkeypatch.setattr(
    workdir, 'load_variables', lambda path, names: {'a': 0.2, 'b': 0.6}[path]
  )
  titles = []
  runs = [members.Run(path, made_run.config_of(), {}, None) for path in 'ab']
  singles, averaged = members.predict(
    runs, nodules, symmetries=True, progress=titles.append
  )
  assert averaged.malignancy_members.shape == (16, 2)
  assert titles == [f'evaluating, {i} of 16' for i in range(1, 17)]
  np.testing.assert_allclose(averaged.outputs['class'], 0.4)
  np.testing.assert_allclose(averaged.sd['class'], 0.2)
  # Without a symmetry, the whole mask is in the upper half.
  for rows, share in zip(singles, (0.2, 0.6), strict=True):
    assert [row['malignancy_probability'] for row in rows] == [share] * 2
    assert [row['fine_dice'] for row in rows] == [1.0] * 2
  # Two of eight views have the mask in the upper half and two in the lower one;
  # in the other four, half of it is in each.
  inside = averaged.outputs['fine'][:, 2:4, 1:7]
  np.testing.assert_allclose(inside, (1 + 0.25) / 2)
  (record, _) = records_lib.make_records(
    nodules,
    averaged.outputs,
    ensemble.disagreement(averaged),
    readers=False,
  )
  # In every pixel, half of the views give 1 and half 0.25.
  assert record['fine_uncertainty'] == pytest.approx(0.375)
  assert record['malignancy_sd'] == pytest.approx(0.2)
  assert record['fine_dice'] == 1.0
