"""Pages of runs without some results, and pages that cannot be written."""

import pages
import pytest

from mtnet_jax.experiments import sweep_figures
from mtnet_jax.reports import figures
from mtnet_jax.reports import overlays
from mtnet_jax.system import errors

pytestmark = pytest.mark.usefixtures('few_replicates')


def test_no_training(tmp_path):
  page = pages.write(tmp_path / 'r', histories={})
  assert 'There is no record of the training.' in page.text


@pytest.mark.parametrize(
  'without, missing, present',
  (
    (('class', 'cam'), 'Class-net', 'Fine Seg-net'),
    (('fine',), 'Fine Seg-net', 'Coarse Seg-net'),
    (('fine', 'class', 'cam'), 'Class-net', 'Coarse Seg-net'),
    (('coarse', 'fine'), 'Coarse Seg-net', 'Class-net'),
  ),
)
def test_missing_networks_are_marked_as_not_run(
  tmp_path, without, missing, present
):
  page = pages.write(tmp_path / 'r', without=without, histories={})
  assert set(page.row(missing)) == {'not run'}
  assert 'not run' not in page.row(present)
  has_masks = not {'coarse', 'fine'} <= set(without)
  assert ('dice.png' in page.images) == has_masks
  assert ('confusion.png' in page.images) == ('class' not in without)
  has_both = not {'coarse', 'fine'} & set(without)
  assert any(row[0] == 'Fine - coarse' for row in page.rows) == has_both


def test_without_the_coarse_mask_the_paper_s_tables_are_left_out(tmp_path):
  page = pages.write(tmp_path / 'r', coarse_mask='none', histories={})
  assert 'Coarse mask withheld' in page.text
  assert 'table4.csv' not in page.links
  assert page.row('Fine Seg-net')[0] == '100.0 (100.0-100.0)'


def test_another_strategy_has_its_own_names_and_no_tables_of_the_paper(
  tmp_path,
):
  page = pages.write(
    tmp_path / 'r', strategy='shared', without=('coarse',), histories={}
  )
  assert 'Strategy shared' in page.text
  assert page.row('Mask')[0] == '100.0 (100.0-100.0)'
  assert page.row('paper, real CT')[0] == '73.9'
  assert 'table1.csv' not in page.links
  assert 'Seg-net' not in page.text and 'Class-net' not in page.text


def test_text_from_data_is_escaped(tmp_path):
  bad = '<script>$\\bad{$'  # Must become neither HTML nor a formula.
  page = pages.write(
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
def test_a_missing_class_is_named(tmp_path, labels, missing):
  page = pages.write(
    tmp_path, labels=labels, patients='abc'[: len(labels)], histories={}
  )
  assert f'no nodule labelled {missing}.' in page.text
  assert 'roc.png' not in page.images
  assert page.row('Class-net')[1] == 'n/a'
  assert page.row('Class-net - diameter only')[1] == 'n/a'


def test_one_patient_has_no_intervals(tmp_path):
  page = pages.write(tmp_path, labels=(0, 1), patients='aa', histories={})
  assert page.row('Coarse Seg-net')[:2] == ['66.7', '50.0']
  assert page.row('Fine - coarse')[:2] == ['+33.3', '+50.0']
  assert 'one patient is too few' in page.text


def test_one_nodule(tmp_path):
  page = pages.write(tmp_path, labels=(1,), patients='a', histories={})
  assert page.row('n0')[0] == 'best'


def test_an_interrupted_report_leaves_the_old_page(tmp_path, monkeypatch):
  old = pages.write(tmp_path / 'r', histories={})

  def fail(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(overlays, 'draw_examples', fail)
  with pytest.raises(KeyboardInterrupt):
    pages.write(tmp_path / 'r', dataset='another', histories={})
  assert pages.Page(tmp_path / 'r' / 'index.html').html == old.html
  assert [path.name for path in tmp_path.iterdir()] == ['r']


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='file.*cannot be written'):
    pages.write(tmp_path / 'file' / 'report', histories={})


def test_files_of_an_older_report_are_removed(tmp_path):
  (tmp_path / 'r').mkdir()
  (tmp_path / 'r' / 'training-fine.png').write_text('old')
  pages.write(tmp_path / 'r', histories={})
  assert not (tmp_path / 'r' / 'training-fine.png').exists()
  assert [path.name for path in tmp_path.iterdir()] == ['r']


@pytest.mark.parametrize('name', ('zz$\\frac{$', '$x$', '$$'))
def test_a_name_in_a_figure_is_not_a_formula(tmp_path, name):
  estimates = [{'value': 0.5, 'ci95': None}]
  history = pages.make_history('coarse', 'val_jaccard')
  for figure in (
    figures.training_curves(
      history,
      title=name,
      metric='val_jaccard',
      metric_name='Jaccard index',
      simulated=True,
    ),
    sweep_figures.rows(
      [name], estimates, metric='Dice', title=name, simulated=True
    ),
  ):
    texts = [figure._suptitle]
    for ax in figure.axes:
      texts += ax.get_yticklabels()
    named = [text for text in texts if name in text.get_text()]
    assert named and not any(text.get_parse_math() for text in named)
    figures.save(figure, tmp_path / 'x.png')
