"""The report says what the records say, safely, and whole or not at all."""

import functools
from html import parser

import numpy as np
import pytest

from mtnet_jax import bootstrap
from mtnet_jax import errors
from mtnet_jax import evaluate
from mtnet_jax import figures
from mtnet_jax import input_pipeline
from mtnet_jax import report
from mtnet_jax import scores

PATCH = 16
DIAMETER_MODEL = {'slope': 1.0, 'intercept': -10.0}


@pytest.fixture(scope='module', autouse=True)
def few_replicates():
  """A thousand take seconds, and the intervals are tested elsewhere."""
  few = functools.partial(bootstrap.patient_weights, replicates=20)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(bootstrap, 'patient_weights', few)
    yield


def make_nodules(labels, patients, *, simulated, first_id='n0'):
  """4x4 squares as nodules, 6, 7, 8, ... mm."""
  count = len(labels)
  mask = np.zeros((count, PATCH, PATCH), np.uint8)
  mask[:, 4:8, 4:8] = 1
  image = np.where(mask, 40, -850).astype(np.int16)
  names = [first_id, *(f'n{i}' for i in range(1, count))]
  return input_pipeline.Nodules(
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
):
  nodules = make_nodules(
    labels, list(patients), simulated=simulated, first_id=first_id
  )
  outputs = make_outputs(nodules)
  records = evaluate.make_records(nodules, outputs)
  results = {
    'dataset': dataset,
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
  report.write(
    directory,
    results=results,
    records=records,
    histories=histories,
    nodules=nodules,
    outputs=outputs,
  )
  return Page(directory / 'index.html')


class Page(parser.HTMLParser):
  """What a reader of the page sees: rows of tables, images, text."""

  def __init__(self, path):
    super().__init__()
    self.html = path.read_text(encoding='utf-8')
    self.rows, self.images, self.links, self.text = [], [], [], ''
    self.tags, self.in_cell = set(), False
    self.feed(self.html)
    self.text = ' '.join(self.text.split())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
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

  def handle_data(self, data):
    self.text += data
    if self.in_cell:
      self.rows[-1][-1] += data.strip()

  def row(self, title, which=0):
    return [row[1:] for row in self.rows if row[0] == title][which]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('run') / 'new' / 'report'


@pytest.fixture(scope='module')
def page(folder):
  return write(folder)


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
  assert page.row('Class-net', 1) == ['3', '2', 'AUC', '0.625', '1.5 min']


def test_examples_table(page):
  # Readers' label, probability 0.1 of malignancy, Dice 16/24 and 1.
  expected = ['best', '6.0', 'benign', '0.100', '0.667', '1.000']
  assert page.row('n0') == expected


def test_everything_it_names_is_there(page, folder):
  assert sorted(page.images) == [
    'dice.png',
    'examples.png',
    'roc.png',
    'training-class.png',
    'training-coarse.png',
    'training-fine.png',
  ]
  for name in {*page.images, *page.links}:
    assert (folder / name).read_bytes().startswith(b'\x89PNG')
  # Nothing else, so no temporary files either.
  left = {path.name for path in folder.iterdir()}
  assert left == {*page.images, 'index.html'}


def test_needs_no_network_and_no_script(page):
  assert '//' not in page.html
  assert not page.tags & {'script', 'link', 'iframe', 'object'}


@pytest.mark.parametrize('simulated', [True, False])
def test_simulated_is_said(tmp_path, simulated):
  page = write(
    tmp_path, simulated=simulated, dataset='lidc_nodules/x', histories={}
  )
  assert ('simulated' in page.text.replace('.simulated', '')) == simulated
  assert ('SIMULATED' in page.html) == simulated
  assert 'CT ' + ('SIMULATED' if simulated else 'real') in page.text
  assert 'No training is on record.' in page.text


@pytest.mark.parametrize('simulated', [True, False])
def test_figures_say_simulated(simulated):
  nodules = make_nodules([0, 1], ['a', 'b'], simulated=simulated)
  outputs = make_outputs(nodules)
  records = evaluate.make_records(nodules, outputs)
  made = [
    figures.training_curves(
      make_history('class', 'val_auc'),
      title='Class-net',
      metric='val_auc',
      metric_name='AUC',
      simulated=simulated,
    ),
    figures.roc([0, 1], {'x': ([0.1, 0.9], 0.5)}, simulated=simulated),
    figures.dice_by_diameter(records, simulated=simulated),
    figures.examples(
      [('best', 0), ('worst', 1)],
      records=records,
      nodules=nodules,
      masks={name: outputs[name] >= 0.5 for name in ('coarse', 'fine')},
      cam=outputs['cam'],
      simulated=simulated,
    ),
  ]
  for figure in made:
    assert ('SIMULATED' in figure.get_suptitle()) == simulated


def test_text_from_data_is_escaped(tmp_path):
  bad = '<script>$\\bad{$'  # Neither HTML nor a formula.
  page = write(tmp_path, first_id=bad, dataset=bad, histories={})
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


@pytest.mark.parametrize(
  'dice, expected',
  [
    ([0.5], [('best', 0)]),
    ([0.1, 0.9], [('best', 1), ('worst', 0)]),
    ([0.3, 0.1, 0.2], [('best', 0), ('median', 2), ('worst', 1)]),
    (
      [0.0, 0.8, 0.1, 0.6, 0.4, 0.9, 0.2],
      [
        ('best', 5),
        ('best', 1),
        ('median', 3),
        ('median', 4),
        ('worst', 2),
        ('worst', 0),
      ],
    ),
    ([1.0, 1.0, 1.0], [('best', 0), ('median', 1), ('worst', 2)]),
  ],
)
def test_choose_examples(dice, expected):
  assert report.choose_examples(dice) == expected


def test_choose_examples_takes_at_most_two_of_each():
  assert len(report.choose_examples(np.linspace(0, 1, 30))) == 6


def test_roc_by_hand():
  scores = [0.1, 0.6, 0.4, 0.9]
  figure = figures.roc([0, 0, 1, 1], {'x': (scores, 0.5)}, simulated=False)
  _, curve, dot = figure.axes[0].lines
  # From the highest score down: malignant, benign, malignant, benign.
  expected = [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
  np.testing.assert_allclose(curve.get_xydata(), expected)
  np.testing.assert_allclose(dot.get_xydata(), [[0.5, 0.5]])
  assert curve.get_label() == 'x, AUC 0.750'


def test_interrupted_report_leaves_the_old_page(tmp_path, monkeypatch):
  old = write(tmp_path, histories={})

  def fail(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(figures, 'examples', fail)
  with pytest.raises(KeyboardInterrupt):
    write(tmp_path, dataset='another', histories={})
  assert Page(tmp_path / 'index.html').html == old.html


def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='file.*cannot be written'):
    write(tmp_path / 'file' / 'report', histories={})


def test_picture_that_cannot_be_written(tmp_path):
  (tmp_path / 'dice.png').mkdir()
  with pytest.raises(errors.InputError, match='dice.png cannot be written'):
    write(tmp_path, histories={})
  assert [path.name for path in tmp_path.iterdir()] == ['dice.png']
