"""The report says what the records say, safely, and whole or not at all."""

import csv
import functools
from html import parser

import numpy as np
import pytest

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.data import readers
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.reports import examples
from mtnet_jax.reports import figures
from mtnet_jax.reports import overlays
from mtnet_jax.reports import page as page_lib
from mtnet_jax.system import errors

PATCH = 16
DIAMETER_MODEL = {'slope': 1.0, 'intercept': -10.0}


@pytest.fixture(scope='module', autouse=True)
def few_replicates():
  """A thousand take seconds, and the intervals are tested elsewhere."""
  few = functools.partial(bootstrap.patient_weights, replicates=20)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(bootstrap, 'patient_weights', few)
    patch.setattr(figures, '_DPI', 20)
    yield


def make_nodules(labels, patients, *, simulated, first_id='n0'):
  """4x4 squares as nodules, 6, 7, 8, ... mm."""
  count = len(labels)
  mask = np.zeros((count, PATCH, PATCH), np.uint8)
  mask[:, 4:8, 4:8] = 1
  image = np.where(mask, 40, -850).astype(np.int16)
  names = [first_id, *(f'n{i}' for i in range(1, count))]
  return nodules_lib.Nodules(
    image=image,
    mask=mask,
    votes=4 * mask,
    label=np.asarray(labels, np.int32),
    info={
      'nodule_id': np.asarray(names),
      'patient_id': np.asarray(patients),
      'diameter_mm': 6.0 + np.arange(count),
    },
    simulated=simulated,
  )


def make_outputs(nodules):
  """Coarse finds the upper half of each square, fine all of it."""
  coarse = nodules.mask * np.float32(0.9)
  coarse[:, 6:] = 0
  count = len(nodules)
  return {
    'coarse': coarse,
    'fine': nodules.mask * np.float32(0.5),  # The threshold itself.
    'class': np.linspace(0.1, 0.9, count, dtype=np.float32),
    'cam': np.zeros((count, PATCH, PATCH), np.float32),
  }


def make_history(stage, metric):
  values = (0.5, 0.625, 0.25)
  return [
    {
      'stage': stage,
      'epoch': epoch,
      'step': 8 * epoch,
      'loss': 1 / epoch,
      metric: value,
      'best': epoch < 3,
      'seconds': 30.5,
    }
    for epoch, value in enumerate(values, 1)
  ]


def write(
  directory,
  *,
  labels=(0, 0, 0, 1, 1, 1, -1),
  patients='aabbcde',
  simulated=True,
  first_id='n0',
  dataset='lidc_nodules/phantom',
  histories=None,
  without=(),
  strategy='mtnet',
  coarse_mask='hard',
  comparisons=None,
  render=False,
):
  """Writes a report; without `render` its figures are made, but not drawn."""
  nodules = make_nodules(
    labels, list(patients), simulated=simulated, first_id=first_id
  )
  outputs = make_outputs(nodules)
  outputs = {key: x for key, x in outputs.items() if key not in without}
  records = records_lib.make_records(nodules, outputs)
  results = {
    'dataset': dataset,
    'strategy': strategy,
    'coarse_mask': coarse_mask,
    'cohort': {'test': nodules_lib.count(nodules)},
    'simulated': simulated,
    'seed': 7,
    'variant': 'demo',
    'versions': {'mtnet_jax': '9.8.7', 'numpy': '2.0.0'},
    'hardware': {'platform': 'cpu', 'kind': 'Slow One', 'devices': 2},
    'diameter_only_model': DIAMETER_MODEL,
    'test': scores.summarise(records, diameter_model=DIAMETER_MODEL, seed=0),
  }
  if histories is None:
    histories = {
      'coarse': make_history('coarse', 'val_jaccard'),
      'class': make_history('class', 'val_auc'),
      'fine': make_history('fine', 'val_jaccard'),
    }
  with pytest.MonkeyPatch.context() as patch:
    if not render:
      patch.setattr(figures, 'save', lambda figure, path: path.touch())
    page_lib.write(
      directory,
      results=results,
      records=records,
      histories=histories,
      examples=examples.pick(records, nodules, outputs),
      comparisons=comparisons,
    )
  return Page(directory / 'index.html')


class Page(parser.HTMLParser):
  """What a reader of the page sees: rows of tables, images, text."""

  def __init__(self, path):
    super().__init__()
    self.html = path.read_text(encoding='utf-8')
    self.rows, self.images, self.links, self.text = [], [], [], ''
    self.tags, self.ids, self.in_cell = set(), set(), False
    self.titles, self.in_caption = [], False
    self.feed(self.html)
    self.text = ' '.join(self.text.split())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    self.ids.add(attrs.get('id'))
    if tag == 'caption':
      self.titles.append('')
      self.in_caption = True
    if tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')
      self.in_cell = True
    elif tag == 'img':
      self.images.append(attrs['src'])
      assert attrs['alt']
    elif tag == 'a':
      self.links.append(attrs['href'])

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self.in_cell = False
      self.rows[-1][-1] = ' '.join(self.rows[-1][-1].split())
    elif tag == 'caption':
      self.in_caption = False
      self.titles[-1] = ' '.join(self.titles[-1].split())

  def handle_data(self, data):
    self.text += data
    if self.in_caption:
      self.titles[-1] += data
    if self.in_cell:
      self.rows[-1][-1] += data

  def row(self, title, which=0):
    return [row[1:] for row in self.rows if row[0] == title][which]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('run') / 'new' / 'report'


@pytest.fixture(scope='module')
def page(folder):
  # Two readers: one drew the whole square, one its upper half.
  def two_readers(nodules):
    whole = nodules.mask > 0
    half = whole & (np.arange(PATCH)[:, None] < 6)
    return list(np.stack([whole, half], axis=1))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(readers, 'masks', two_readers)
    return write(folder, render=True)


def test_values_are_formatted(page):
  # Coarse: 8 of 16 pixels, so Dice 16/24 and Jaccard 8/16; of 256 pixels 248
  # are right. Every nodule is alike, so the intervals have no width.
  assert page.row('Coarse Seg-net') == [
    '66.7 (66.7-66.7)',
    '50.0 (50.0-50.0)',
    '96.9 (96.9-96.9)',
    '50.0 (50.0-50.0)',
    '100.0 (100.0-100.0)',
  ]
  assert page.row('pooled pixels')[0] == '66.7 (66.7-66.7)'
  assert page.row('Fine Seg-net') == ['100.0 (100.0-100.0)'] * 5
  assert page.row('Fine - coarse')[:2] == [
    '+33.3 (+33.3 to +33.3)',
    '+50.0 (+50.0 to +50.0)',
  ]
  # Probabilities rise with the label: 0.1, 0.23, 0.37 | 0.5, 0.63, 0.77.
  assert page.row('Class-net') == ['100.0 (100.0-100.0)'] * 4
  # 6, 7, 8 | 9, 10, 11 mm against 10 mm: one malignant nodule is missed.
  accuracy, auc, sensitivity, specificity = page.row('Diameter only')
  assert accuracy.startswith('83.3 (')
  assert auc == specificity == '100.0 (100.0-100.0)'
  assert sensitivity.startswith('66.7 (')
  assert page.row('Class-net - diameter only')[0].startswith('+16.7 (')
  assert page.row('paper, real CT')[0] == '80.1'
  assert page.row('paper, real CT', 1)[0] == '83.2'
  assert page.row('paper, real CT', 2) == ['91.9', '93.5', '81.4', '95.0']


def test_header(page):
  for words in (
    'lidc_nodules/phantom',
    '7: 3 malignant, 3 benign, 1 open',
    'Test patients 5',
    'Variant demo',
    'Seed 7',
    '2 x Slow One (cpu)',
    'mtnet_jax 9.8.7, numpy 2.0.0',
    'not pathology',
    'not a medical device',
  ):
    assert words in page.text


def test_training_table_has_the_kept_epoch(page):
  row = ['3', '2', 'Jaccard index', '0.625', '1.5 min']
  assert page.row('Coarse Seg-net', 1) == row
  assert page.row('Fine Seg-net', 1) == row
  assert page.row('Class-net', 2) == ['3', '2', 'AUC', '0.625', '1.5 min']


def test_probabilities(page):
  # 0.1, 0.23, 0.37 | 0.5, 0.63, 0.77, one in a bin each.
  errors_ = np.array([0.1, 0.7 / 3, 1.1 / 3, 0.5, 1.1 / 3, 0.7 / 3])
  precision, error, brier, _ = page.row('Class-net', 1)
  assert precision == '1.000 (1.000-1.000)'
  assert error.startswith(f'{errors_.mean():.3f} (')
  assert brier.startswith(f'{(errors_**2).mean():.3f} (')


def test_confusion_matrix(page):
  assert page.row('readers: benign') == ['3', '0']
  assert page.row('readers: malignant') == ['0', '3']


def test_readers(page):
  # 16 and 8 pixels, 8 of them shared: Dice 16/24. Whoever drew one of the two
  # agrees with itself and 2/3 with the other.
  assert page.row('Readers with each other')[0] == '66.7 (66.7-66.7)'
  for who in ('Coarse Seg-net', 'Fine Seg-net', 'Their consensus'):
    assert page.row(f'{who} with readers') == ['83.3 (83.3-83.3)']
  assert page.row('Fine Seg-net - readers') == ['+16.7 (+16.7 to +16.7)']


def test_groups(page):
  # 6, 7 | 8 to 12 mm, none of them 15; the patients are a a | b b c d e.
  row = page.row('Diameter: 6 to 8 mm')
  assert row[:4] == ['2', '1', '0', '2']
  # One patient: no interval, and one class: no AUC.
  assert row[4:] == ['66.7', '100.0', '66.7', '100.0', 'n/a']
  row = page.row('Diameter: 8 to 15 mm')
  assert row[:4] == ['5', '4', '3', '4']
  assert row[8].startswith('100.0 (')
  shown = [row[0] for row in page.rows]
  assert not any('15 mm and more' in title for title in shown)


def test_cohort(page):
  assert page.row('test') == ['7', '3', '3', '1', '5']
  assert 'Split by patient. Open' in page.text


def test_a_split_by_nodule_is_told(tmp_path):
  page = write(tmp_path, dataset='lidc_nodules/phantom?split_by=nodule')
  assert 'Split by nodule (a patient can be in several' in page.text
  assert 'Split by patient' not in page.text


def test_tables_of_the_paper(page):
  # Table 1: segmentation, then classification.
  assert page.row('Wu et al. [30], its paper') == (
    ['73.9', '-', '-', '-', '-', '97.6', '-', '-', '-']
  )
  assert page.row('MT-Net, paper')[::5] == ['83.2', '91.9']
  assert page.row('MT-Net, here')[::5] == [
    '100.0 (100.0-100.0)',
    '100.0 (100.0-100.0)',
  ]
  assert page.row('Ni et al. [32]') == ['2022', '83.0', '71.0', '-', '-', '-']
  assert page.row('Huang et al. [36]') == ['2022', '91.1', '95.8', '-', '-']
  assert page.row('Without, paper') == ['84.2', '90.6', '80.1', '92.5']
  assert page.row('Coarse Seg-net alone, here')[0] == '66.7 (66.7-66.7)'
  for title, command in (
    ('shared, here', 'configs/baselines.py:table1'),
    ('Without, here', 'configs/ablations.py:table4'),
    ('Fine without mask, here', 'configs/ablations.py:table5'),
  ):
    (cell,) = page.row(title)
    assert cell.startswith('not run:')
    assert cell.endswith(f'python -m mtnet_jax.sweep --config={command}')


def test_examples_table(page):
  # Readers' label, probability 0.1 of malignancy, Dice 16/24 and 1.
  expected = ['best', '6.0', 'benign', '0.100', '0.667', '1.000']
  assert page.row('n0') == expected


def test_everything_it_names_is_there(page, folder):
  assert sorted(page.images) == [
    'calibration.png',
    'confusion.png',
    'dice.png',
    'examples.png',
    'precision-recall.png',
    'roc.png',
    'subgroups-auc.png',
    'subgroups-dice.png',
    'training-class.png',
    'training-coarse.png',
    'training-fine.png',
  ]
  for name in page.images:
    assert (folder / name).read_bytes().startswith(b'\x89PNG')
  anchors = {name for name in page.links if name.startswith('#')}
  assert {name[1:] for name in anchors} <= page.ids
  # Nothing else, so no temporary files either.
  left = {path.name for path in folder.iterdir()}
  assert left == {*page.images, *page.links, 'index.html'} - anchors
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def read_csv(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_every_table_is_a_csv(page, folder):
  files = {name for name in page.links if name.endswith('.csv')}
  assert len(files) == len(page.titles) == 14
  for name in files:
    rows = read_csv(folder / name)
    # Simulated is what is ours, and nothing that the paper printed.
    for row in rows:
      expected = 'False' if row['kind'] == 'paper' else 'True'
      assert row['simulated'] == expected, (name, row)
  rows = read_csv(folder / 'segmentation.csv')
  assert rows[0]['row'] == 'Coarse Seg-net'
  # Dice 16/24, as a fraction and unrounded.
  for key in ('dice', 'dice_low', 'dice_high'):
    assert float(rows[0][key]) == pytest.approx(2 / 3)
  missing = [row for row in read_csv(folder / 'table4.csv') if row['command']]
  assert [row['kind'] for row in missing] == ['missing']


def test_needs_no_network_and_no_script(page):
  assert '//' not in page.html
  assert not page.tags & {'script', 'link', 'iframe', 'object'}


@pytest.mark.parametrize('simulated', [True, False])
def test_simulated_is_said(tmp_path, monkeypatch, simulated):
  titles = []

  def keep_title(figure, path):
    titles.append(figure.get_suptitle())

  monkeypatch.setattr(figures, 'save', keep_title)
  page = write(
    tmp_path / 'r',
    simulated=simulated,
    dataset='lidc_nodules/x',
    render=True,
  )
  assert ('simulated' in page.text.replace('.simulated', '')) == simulated
  assert ('SIMULATED' in page.html) == simulated
  assert 'CT ' + ('SIMULATED' if simulated else 'real') in page.text
  assert len(titles) == len(page.images)
  for title in [*titles, *page.titles]:
    assert title.startswith('SIMULATED CT: ') == simulated


def test_no_training(tmp_path):
  page = write(tmp_path / 'r', histories={})
  assert 'No training is on record.' in page.text


@pytest.mark.parametrize(
  'without, missing, present',
  (
    (('class', 'cam'), 'Class-net', 'Fine Seg-net'),
    (('fine',), 'Fine Seg-net', 'Coarse Seg-net'),
    (('fine', 'class', 'cam'), 'Class-net', 'Coarse Seg-net'),
    (('coarse', 'fine'), 'Coarse Seg-net', 'Class-net'),
  ),
)
def test_networks_that_a_run_lacks_are_not_run(
  tmp_path, without, missing, present
):
  page = write(tmp_path / 'r', without=without, histories={})
  assert set(page.row(missing)) == {'not run'}
  assert 'not run' not in page.row(present)
  has_masks = not {'coarse', 'fine'} <= set(without)
  assert ('dice.png' in page.images) == has_masks
  assert ('confusion.png' in page.images) == ('class' not in without)
  has_both = not {'coarse', 'fine'} & set(without)
  assert any(row[0] == 'Fine - coarse' for row in page.rows) == has_both


def test_without_the_coarse_mask_it_is_no_mtnet(tmp_path):
  page = write(tmp_path / 'r', coarse_mask='none', histories={})
  assert 'Coarse mask withheld' in page.text
  assert 'table4.csv' not in page.links
  assert page.row('Fine Seg-net')[0] == '100.0 (100.0-100.0)'


def test_another_strategy_has_no_rows_of_mtnet(tmp_path):
  page = write(
    tmp_path / 'r', strategy='shared', without=('coarse',), histories={}
  )
  assert 'Strategy shared' in page.text
  assert page.row('Mask')[0] == '100.0 (100.0-100.0)'
  assert page.row('paper, real CT')[0] == '73.9'
  assert 'table1.csv' not in page.links
  assert 'Seg-net' not in page.text and 'Class-net' not in page.text


def test_text_from_data_is_escaped(tmp_path):
  bad = '<script>$\\bad{$'  # Neither HTML nor a formula.
  page = write(
    tmp_path / 'r', first_id=bad, dataset=bad, histories={}, render=True
  )
  assert 'script' not in page.tags
  assert bad not in page.html
  assert page.row(bad)[0] == 'best'
  assert f'Dataset {bad}' in page.text


@pytest.mark.parametrize(
  'labels, missing',
  [
    ((0, 0, 0), 'malignant'),
    ((1, 1), 'benign'),
    ((-1, -1), 'benign or malignant'),
  ],
)
def test_missing_class(tmp_path, labels, missing):
  page = write(
    tmp_path, labels=labels, patients='abc'[: len(labels)], histories={}
  )
  assert f'no nodule labelled {missing}.' in page.text
  assert 'roc.png' not in page.images
  assert page.row('Class-net')[1] == 'n/a'
  assert page.row('Class-net - diameter only')[1] == 'n/a'


def test_one_patient_has_no_intervals(tmp_path):
  page = write(tmp_path, labels=(0, 1), patients='aa', histories={})
  assert page.row('Coarse Seg-net')[:2] == ['66.7', '50.0']
  assert page.row('Fine - coarse')[:2] == ['+33.3', '+50.0']
  assert 'one is too few' in page.text


def test_one_nodule(tmp_path):
  page = write(tmp_path, labels=(1,), patients='a', histories={})
  assert page.row('n0')[0] == 'best'


def test_interrupted_report_leaves_the_old_page(tmp_path, monkeypatch):
  old = write(tmp_path / 'r', histories={})

  def fail(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(overlays, 'draw_examples', fail)
  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / 'r', dataset='another', histories={})
  assert Page(tmp_path / 'r' / 'index.html').html == old.html
  assert [path.name for path in tmp_path.iterdir()] == ['r']


def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='file.*cannot be written'):
    write(tmp_path / 'file' / 'report', histories={})


def test_nothing_of_an_older_report_is_left(tmp_path):
  (tmp_path / 'r').mkdir()
  (tmp_path / 'r' / 'training-fine.png').write_text('old')
  write(tmp_path / 'r', histories={})
  assert not (tmp_path / 'r' / 'training-fine.png').exists()
  assert [path.name for path in tmp_path.iterdir()] == ['r']
