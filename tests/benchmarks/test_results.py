"""Tests that the page of results follows from the records of the runs."""

import json
import re
import types

import made_records
import pytest

from benchmarks.results import analysis
from benchmarks.results import claims
from benchmarks.results import gather
from benchmarks.results import page
from benchmarks.results import sources
from mtnet_jax.evaluation import finished_run
from mtnet_jax.reports import tables
from mtnet_jax.storage import files

# Strategy -> by how much the Dice of its fine masks exceeds MT-Net's.
_BETTER = {'serial': -0.02, 'single': 0.03}


def records_of(point, fold):
  """Returns records of a fold's own nodules, of which the first has no CT."""
  shift = 0.05 + _BETTER.get(point, 0.0)
  records = made_records.make_records(shift=shift)
  for record in records:
    name = f'{fold}-{record["nodule_id"]}'
    record |= {
      'nodule_id': name,
      'patient_id': f'{fold}-{record["patient_id"]}',
      'fold': fold,
      'simulated': True,
      'diameter_mm': 8.0 if record['label'] else 5.0,
      'texture': 5.0,
      'num_readers': 4,
    }
    for key in ('', 'consensus_', 'coarse_', 'fine_'):
      record[f'{key}reader_dice'] = 0.8
  records[0]['nodule_id'] = sources.WITHOUT_CT[0]
  if point in ('shared', 'feedback', 'serial', 'single'):
    for record in records:
      for key in [key for key in record if key.startswith('coarse_')]:
        del record[key]
  return records


def made_up(path):
  """Replaces `finished_run.read` for a run of the tables."""
  point, fold = path.parts[-2:]
  fold = int(fold.removeprefix('fold'))
  dataset = types.SimpleNamespace(
    rotate_folds=(fold + 1) % 5,
    name='lidc_nodules/phantom',
    # Each fold has other splits and thus another fingerprint.
    fingerprint=f'abc{fold}',
  )
  return types.SimpleNamespace(
    records=records_of(point, fold),
    histories={
      stage: [{'seconds': 10.0 + fold}] * 2
      for stage in ('coarse', 'class', 'fine')
    },
    config=types.SimpleNamespace(dataset=dataset, image_size=112),
    results={
      'cohort': {},
      'simulated': True,
      'hardware': {'devices': 1, 'kind': 'cpu', 'platform': 'cpu'},
      'versions': {'mtnet_jax': '0.1', 'jax': '0.10'},
      'diameter_only_model': {'slope': 1.0, 'intercept': -6.5},
    },
  )


def _finish(runs, names):
  """Makes the folders of all runs of some points of the tables."""
  for point in sources.TABLES.plan():
    if point.name in names:
      folder = runs / 'tables-small' / point.folder
      folder.mkdir(parents=True)
      (folder / 'metrics.json').write_text('{}')


def _finish_peers(runs):
  for fold in sources.FOLDS:
    folder = runs / sources.PEERS / f'fold{fold}'
    folder.mkdir(parents=True)
    files.write_csv(folder / 'records.csv', records_of('single', fold))
    # Six epochs of MT-Net.
    time = 6 * (10.0 + fold)
    network = {
      'seconds': 20 + fold,
      'budget_s': time,
      'epochs': 3 + fold,
      'parameters': 1000,
    }
    files.write_json(
      folder / 'peers.json',
      {
        'networks': [{**network, 'network': 'MONAI U-Net'}],
        'fingerprint': f'abc{fold}',
        'share_of_time': 1.0,
        'learning_rate': 0.001,
      },
    )


@pytest.fixture
def docs(tmp_path, monkeypatch):
  """A docs folder with the gathered numbers of all runs of the tables."""
  _finish(tmp_path / 'runs', sources.TABLES.config().points)
  _finish_peers(tmp_path / 'runs')
  monkeypatch.setattr(finished_run, 'read', made_up)
  gather.gather(
    tmp_path / 'runs',
    tmp_path / 'docs' / 'results',
    hardware='An abacus',
    date='2026-01-01',
  )
  return tmp_path / 'docs'


def test_files_preserve_the_numbers(docs):
  records, made = gather.read(docs / 'results')
  assert list(records) == ['tables'] == list(made)
  points = records['tables']
  assert set(points) == {
    *sources.TABLES.config().points,
    gather.PEERS,
    gather.DIAMETER,
  }
  for point, rows in points.items():
    # Each patient has two nodules per fold; the one without CT is left out.
    assert len(rows) == 5 * (2 * made_records.PATIENTS - 1), point
    assert sources.WITHOUT_CT[0] not in {row['nodule_id'] for row in rows}
  (found,) = (r for r in points['serial'] if r['nodule_id'] == '3-n7')
  (expected,) = (r for r in records_of('serial', 3) if r['nodule_id'] == '3-n7')
  assert found['fine_dice'] == pytest.approx(expected['fine_dice'], abs=1e-5)
  assert 'coarse_dice' not in found
  assert found['malignancy_probability'] == expected['malignancy_probability']
  # 1 / (1 + exp(-(8 - 6.5))), because malignant ones have 8 mm.
  (found,) = (r for r in points[gather.DIAMETER] if r['nodule_id'] == '3-n7')
  assert found['malignancy_probability'] == pytest.approx(0.8175745)


def test_the_page_has_the_results(docs):
  text = page.write(docs)
  assert text == (docs / 'results.md').read_text()
  assert 'SIMULATED CT' in text.splitlines()[0]
  assert '195 SIMULATED nodules of 100' in ' '.join(text.split())
  assert 'An abacus; mtnet_jax 0.1, JAX 0.10; 2026-01-01.' in text
  rows = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in text.splitlines()
    if line.startswith('| ')
  ]
  found = {(row[0], row[2]): row for row in rows if len(row) == 6}
  # The Dice of every fine mask exceeds that of the coarse mask by 5 points.
  row = found['Fine Seg-net is better than Coarse Seg-net', 'DI']
  assert row[3:] == ['+3.1', '+5.0 (+5.0 to +5.0)', 'holds']
  row = found['MT-Net is better than the serial strategy of Yu et al.', 'DI']
  assert row[3:] == [
    '+2.7',
    '+2.0 (+2.0 to +2.0)',
    'holds, by less than in the paper',
  ]
  row = found['MT-Net is better than a U-Net alone', 'DI']
  assert row[3:] == [
    '-',
    '-3.0 (-3.0 to -3.0)',
    'does not hold: the opposite does',
  ]
  # Three stages of two epochs, 12 s each in the median fold.
  assert ['MT-Net', '72', 'coarse 24, class 24, fine 24'] in rows
  assert '1,000 parameters, 22 s, 5 epochs (MT-Net: 4)' in ' '.join(
    text.split()
  )
  # 6 epochs of 10 s in the first fold, and of 14 s in the last.
  assert 'took between 60 and 84 s' in ' '.join(text.split())
  # The page names the commands of missing runs.
  assert sources.FIGURE7.command in text
  assert text.count('not run yet') == 3
  for picture in re.findall(r'\]\((results/[^)]+\.png)\)', text):
    assert (docs / picture).exists(), picture
  assert not re.search(r'\b(nan|None)\b', text)


@pytest.mark.parametrize(
  'interval, paper, verdict',
  [
    ((0.01, 0.05), 0.03, 'holds'),
    ((0.01, 0.02), 0.03, 'holds, by less than in the paper'),
    ((-0.01, 0.05), 0.03, 'undecided'),
    ((-0.01, 0.02), None, 'undecided'),
    (
      (-0.01, 0.02),
      0.03,
      'undecided, but less than in the paper',
    ),
    ((-0.02, -0.01), 0.03, 'does not hold: the opposite does'),
  ],
)
def test_verdicts(interval, paper, verdict):
  estimate = {'value': sum(interval) / 2, 'ci95': list(interval)}
  assert claims.Claim('', '', 'dice', paper, estimate).verdict == verdict
  # No interval exists for too few patients or a single class.
  nothing = claims.negated({'value': None, 'ci95': None})
  assert claims.Claim('', '', 'dice', paper, nothing).verdict == 'no interval'


@pytest.mark.parametrize(
  ('interval', 'word'),
  (
    ((0.001, 0.02), 'M is better than U'),
    ((-0.004, 0.02), 'at most half a point worse than U, and may be better'),
    ((-0.006, 0.02), 'not shown to be better or worse'),
    ((-0.02, -0.001), 'M is worse than U'),
    # Within the margin, but worse.
    ((-0.004, -0.001), 'M is worse than U'),
    (None, 'not compared'),
  ),
)
def test_sentences_about_a_peer(interval, word):
  assert word in claims.not_below('M is', {'ci95': interval}, 'U')


def test_compilation_is_the_excess_of_the_first_epoch():
  assert gather._compiling([50.0, 10.0, 12.0, 30.0]) == 38
  assert gather._compiling([50.0]) == 0


def test_a_negated_difference():
  found = claims.negated({'value': 0.02, 'ci95': [-0.01, 0.05]})
  assert found == {'value': -0.02, 'ci95': [-0.05, 0.01]}


def test_auc_within_folds():
  """Values by hand: the order between folds does not matter."""
  records = [
    {'fold': fold, 'label': label, 'malignancy_probability': p, 'patient_id': i}
    for i, (fold, label, p) in enumerate(
      (fold, label, fold / 10 + 0.05 * label)
      for fold in sources.FOLDS
      for label in (0, 1)
    )
  ]
  assert analysis.auc_within_folds(records) == (1.0, 1.0, 1.0)
  # The first fold is in the wrong order.
  records[0]['label'], records[1]['label'] = 1, 0
  assert analysis.auc_within_folds(records) == (0.0, 0.8, 1.0)


def test_rows_of_the_tables(docs):
  """Compares the estimates of a row with means that are computed here."""
  records, _ = gather.read(docs / 'results')
  results = analysis.compare(sources.TABLES, records['tables'])
  rows = analysis.table_rows(results, 'fine', ('mtnet', 'serial'))
  assert [row[0] for row in rows] == [
    'Coarse Seg-net',
    '- minus Fine Seg-net',
    '- in the paper',
    'Fine Seg-net',
    '- in the paper',
    'Yu et al. [1]: serial, the mask cuts the nodule out',
    '- minus Fine Seg-net',
    '- in the paper',
  ]
  dice = [row['fine_dice'] for row in records['tables']['mtnet']]
  assert rows[3][1].startswith(f'{100 * sum(dice) / len(dice):.1f} (')
  assert rows[4][1:] == ('83.2', '71.2', '96.3', '92.5', '97.7')
  assert tables.cell_text(None) == 'not run'


def test_without_a_finished_point_nothing_is_gathered(tmp_path):
  with pytest.raises(gather.errors.InputError, match='no finished point'):
    gather.gather(tmp_path, tmp_path / 'out', hardware='', date='')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  (
    ('share_of_time', 0.5, 'fold 2 had 0.5'),
    ('fingerprint', 'of another build', 'different builds'),
    # MT-Net's 6 epochs took 12 s each.
    ('networks', [{'budget_s': 70.0}], 'fold 2 had 70 .* MT-Net 72'),
  ),
)
def test_peers_of_other_runs_raise(tmp_path, docs, key, value, message):
  path = tmp_path / 'runs' / sources.PEERS / 'fold2' / 'peers.json'
  files.write_json(path, {**files.read_json(path), key: value})
  with pytest.raises(gather.errors.InputError, match=message):
    gather.gather(tmp_path / 'runs', tmp_path / 'x', hardware='', date='')


def test_runs_of_several_days_make_one_page(docs, tmp_path):
  """Gathering in two steps gives the same page as gathering all runs."""
  later = tmp_path / 'later'
  _finish(tmp_path / 'first', {'mtnet', 'serial'})
  _finish_peers(tmp_path / 'first')
  others = {*sources.TABLES.config().points} - {'mtnet', 'serial'}
  # A point with an unfinished run is ignored.
  _finish(tmp_path / 'second', {*others, 'serial'})
  (tmp_path / 'second/tables-small/serial/fold2/metrics.json').unlink()
  for name, date in (('first', '2026-01-01'), ('second', '2026-02-03')):
    gather.gather(
      tmp_path / name, later / 'results', hardware='An abacus', date=date
    )
    text = page.write(later)
    if name == 'first':
      assert 'Not run yet, and so missing below: ' in text
      assert 'MT-Net is better than the serial strategy of Yu et al.' in text
      assert 'MT-Net is better than the shared encoder' not in text
      assert 'An abacus; mtnet_jax 0.1, JAX 0.10; 2026-01-01.' in text
  assert '2026-01-01 to 2026-02-03.' in text
  assert page.write(docs) == text.replace(' to 2026-02-03', '')
  for path in (docs / 'results').glob('*.csv'):
    ours, theirs = (
      sorted(file.read_text().splitlines())
      for file in (path, later / 'results' / path.name)
    )
    assert ours == theirs


def test_runs_keep_their_first_date(docs, tmp_path):
  before = (docs / 'results' / 'runs.json').read_text()
  again = {'hardware': 'Another abacus', 'date': '2027-01-01'}
  gather.gather(tmp_path / 'runs', docs / 'results', **again)
  assert (docs / 'results' / 'runs.json').read_text() == before


def test_peers_need_runs_of_mt_net(docs, tmp_path):
  _finish_peers(tmp_path / 'alone')
  with pytest.raises(gather.errors.InputError, match='and no MT-Net'):
    gather.gather(tmp_path / 'alone', tmp_path / 'x', hardware='', date='')


def test_a_page_without_mt_net_raises(docs):
  records, made = gather.read(docs / 'results')
  del records['tables']['mtnet']
  with pytest.raises(gather.errors.InputError, match='configs/baselines.py'):
    page.render(records, made)


def test_damaged_numbers_raise(docs):
  path = docs / 'results' / 'runs.json'
  path.write_text(json.dumps({})[:-1])
  with pytest.raises(gather.errors.InputError, match='runs.json'):
    page.write(docs)
