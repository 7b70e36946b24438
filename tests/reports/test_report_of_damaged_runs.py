"""A damaged run has no report, but an error of one line that names the run."""

import json
import shutil

import made_run
import pages
import pytest

from mtnet_jax import report
from mtnet_jax.reports import examples
from mtnet_jax.reports import figures
from mtnet_jax.system import errors

pytestmark = pytest.mark.usefixtures('few_replicates')


@pytest.fixture(scope='module', name='whole')
def _whole(tmp_path_factory, few_replicates):
  return made_run.write_results(tmp_path_factory.mktemp('whole') / 'run')


@pytest.fixture(name='run_dir')
def _run_dir(whole, tmp_path, monkeypatch):
  """A run that tests may damage; its report needs no dataset or networks."""
  nodules = pages.make_nodules([0, 1], ['a', 'b'], simulated=True)
  monkeypatch.setattr(report, '_load_same_splits', lambda *_: {'test': nodules})
  monkeypatch.setattr(figures, 'save', lambda figure, path: path.touch())
  return shutil.copytree(whole, tmp_path / 'run')


@pytest.fixture(name='drawn')
def _drawn(monkeypatch):
  """Makes the examples of the report without networks."""
  nodules = pages.make_nodules([0, 1], ['a', 'b'], simulated=True)
  outputs = pages.make_outputs(nodules)
  rows = report.records.make_records(nodules, outputs)
  monkeypatch.setattr(
    report, '_examples', lambda *_: examples.pick(rows, nodules, outputs)
  )


@pytest.mark.usefixtures('drawn')
def test_an_intact_run_has_a_page(run_dir):
  assert report.write_again(run_dir).exists()


@pytest.mark.usefixtures('drawn')
@pytest.mark.parametrize(
  'key, value',
  (
    ('hardware', ...),
    ('hardware', {}),
    ('coarse_mask', 'odd'),
    ('earlier_versions', ['odd']),
  ),
)
def test_damaged_metrics_are_refused(run_dir, key, value):
  path = run_dir / 'metrics.json'
  tree = json.loads(path.read_text())
  tree.pop(key, None)
  if value is not ...:
    tree[key] = value
  path.write_text(json.dumps(tree))
  with pytest.raises(errors.InputError, match=f'^{run_dir} is damaged, or of'):
    report.write_again(run_dir)
  assert not (run_dir / 'report').exists()


@pytest.mark.usefixtures('drawn')
@pytest.mark.parametrize(
  'old, new',
  (
    ('val_jaccard', 'odd'),
    ('True,1.5', 'False,1.5'),
    ('True,1.5', 'True,odd'),
    ('seconds', 'odd'),
    ('loss', 'odd'),
  ),
)
def test_a_damaged_log_is_refused(run_dir, old, new):
  path = run_dir / 'train_log.csv'
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
  with pytest.raises(errors.InputError, match=f'^{run_dir} is damaged, or of'):
    report.write_again(run_dir)
  assert not (run_dir / 'report').exists()


def test_records_without_an_id_are_refused(run_dir):
  path = run_dir / 'records.csv'
  path.write_text(path.read_text().replace('nodule_id', 'odd', 1))
  with pytest.raises(errors.InputError, match="damaged.*KeyError, 'nodule_id'"):
    report.write_again(run_dir)
