"""The report of a run: its values, its files, and its marks of simulated CT."""

import csv

import numpy as np
import pages
import pytest

from mtnet_jax.reports import figures

pytestmark = pytest.mark.usefixtures('few_replicates')


def test_values_are_formatted(page):
  # The coarse mask has 8 of 16 pixels, so Dice is 16/24 and Jaccard 8/16; 248
  # of 256 pixels are right. All nodules are alike, so intervals have no width.
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
  # Benign: 0.1, 0.23, 0.37; malignant: 0.5, 0.63, 0.77.
  assert page.row('Class-net') == ['100.0 (100.0-100.0)'] * 4
  # Benign: 6, 7, 8 mm; malignant: 9, 10, 11 mm. The threshold is 10 mm, so one
  # malignant nodule is missed.
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
  # Benign: 0.1, 0.23, 0.37; malignant: 0.5, 0.63, 0.77; one nodule per bin.
  errors_ = np.array([0.1, 0.7 / 3, 1.1 / 3, 0.5, 1.1 / 3, 0.7 / 3])
  precision, error, brier, _ = page.row('Class-net', 1)
  assert precision == '1.000 (1.000-1.000)'
  assert error.startswith(f'{errors_.mean():.3f} (')
  assert brier.startswith(f'{(errors_**2).mean():.3f} (')


def test_confusion_matrix(page):
  assert page.row('readers: benign') == ['3', '0']
  assert page.row('readers: malignant') == ['0', '3']


def test_readers(page):
  # Masks of 16 and 8 pixels, 8 of them shared: Dice is 16/24. Each network, and
  # the consensus, equals one of the two: its mean is that of 1 and 2/3.
  assert page.row('Readers with each other')[0] == '66.7 (66.7-66.7)'
  for who in ('Coarse Seg-net', 'Fine Seg-net', 'Their consensus'):
    assert page.row(f'{who} with readers') == ['83.3 (83.3-83.3)']
  assert page.row('Fine Seg-net - readers') == ['+16.7 (+16.7 to +16.7)']


def test_groups(page):
  # Two nodules of 6 and 7 mm are of patient a; five of 8 to 12 mm are of
  # patients b, b, c, d and e.
  row = page.row('Diameter: 6 to 8 mm')
  assert row[:4] == ['2', '1', '0', '2']
  # One patient gives no interval, and one class gives no AUC.
  assert row[4:] == ['66.7', '100.0', '66.7', '100.0', 'n/a']
  row = page.row('Diameter: 8 to 15 mm')
  assert row[:4] == ['5', '4', '3', '4']
  assert row[8].startswith('100.0 (')
  shown = [row[0] for row in page.rows]
  assert not any('15 mm and more' in title for title in shown)


def test_cohort(page):
  assert page.row('test') == ['7', '3', '3', '1', '5']
  assert 'Split by patient. Open' in page.text


def test_a_split_by_nodule_is_named(tmp_path):
  page = pages.write(tmp_path, dataset='lidc_nodules/phantom?split_by=nodule')
  assert 'Split by nodule (a patient can be in several' in page.text
  assert 'Split by patient' not in page.text


def test_tables_of_the_paper(page):
  # Table 1 has columns of segmentation, then of classification.
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
  for title in ('shared, here', 'Without, here', 'Fine without mask, here'):
    assert page.row(title) == ['not run: train them && show them']


def test_rows_without_a_run_are_marked(tmp_path):
  assert pages.write(tmp_path).row('shared, here') == ['not run']


def test_examples_table(page):
  # Rank, mm, readers' label, malignancy, coarse Dice of 16/24, fine Dice of 1.
  expected = ['best', '6.0', 'benign', '0.100', '0.667', '1.000']
  assert page.row('n0') == expected


def test_all_files_that_the_page_names_exist(page, folder):
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
  # There are no other files, such as temporary ones.
  files = {path.name for path in folder.iterdir()}
  assert files == {*page.images, *page.links, 'index.html'} - anchors
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def read_csv(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_every_table_is_a_csv(page, folder):
  files = {name for name in page.links if name.endswith('.csv')}
  assert len(files) == len(page.titles) == 14
  for name in files:
    rows = read_csv(folder / name)
    # All results are simulated, except those that the paper reports.
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


def test_the_page_needs_no_network_connection_and_no_script(page):
  assert '//' not in page.html
  assert not page.tags & {'script', 'link', 'iframe', 'object'}


@pytest.mark.parametrize('simulated', [True, False])
def test_simulated_ct_is_marked(tmp_path, monkeypatch, simulated):
  titles = []

  def keep_title(figure, path):
    titles.append(figure.get_suptitle())

  monkeypatch.setattr(figures, 'save', keep_title)
  page = pages.write(
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
