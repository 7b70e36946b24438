"""Runs that are moved or replaced while a command evaluates them."""

import json
import shutil
import sys

import made_run
import numpy as np
import pytest

from mtnet_jax import evaluate
from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.inference import members
from mtnet_jax.storage import together
from mtnet_jax.system import errors


@pytest.fixture(scope='module', name='four')
def _four(phantom_data_dir):
  return lidc.load_split(
    'lidc_nodules/phantom', 'test', data_dir=phantom_data_dir, limit=4
  )


@pytest.fixture(name='evaluated')
def _evaluated(four, tmp_path, monkeypatch):
  """Function (meanwhile): evaluates; `meanwhile` runs during the prediction."""
  made_run.write_results(tmp_path / 'run')
  load = lambda *_, **__: ('test', four)  # noqa: E731
  monkeypatch.setattr(choice, 'load_for_evaluation', load)
  monkeypatch.setattr(members.workdir, 'load_variables', lambda *_: None)

  def call(meanwhile, *flags, run='run'):
    def predict(config, variables, nodules, *, progress):
      meanwhile()
      shape = nodules.image.shape
      return {
        'coarse': np.full(shape, 0.6, np.float32),
        'fine': np.full(shape, 0.6, np.float32),
        'class': np.linspace(0, 1, len(nodules), dtype=np.float32),
      }

    monkeypatch.setattr(members.outputs, 'predict', predict)
    monkeypatch.setattr(
      sys, 'argv', ['evaluate', f'--workdir={tmp_path / run}', *flags]
    )
    evaluate.main()

  return call


def _rename(run):
  run.rename(run.with_name('elsewhere'))


def _replace(run):
  shutil.copytree(run, run.with_name('copy'))
  _rename(run)
  run.with_name('copy').rename(run)


def _change(run):
  tree = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps({**tree, 'seed': 1}))


def _results(folder):
  return sorted(x.name for x in folder.rglob('*') if x.is_file())


@pytest.mark.parametrize('change', (_rename, _replace, _change))
@pytest.mark.parametrize('into', ('run', 'elsewhere'))
def test_nothing_is_written_below_another_run(
  evaluated, tmp_path, change, into
):
  run, out = tmp_path / 'run', tmp_path / 'mine'
  there = []

  def meanwhile():
    change(run)
    there.extend([run.exists(), _results(run)])

  flags = [] if into == 'run' else [f'--out={out}']
  with pytest.raises(errors.InputError, match='is not the run that was read'):
    evaluated(meanwhile, *flags)
  # The old path is not made again, and gets no other file than a lock, which
  # disappears with its process.
  lock = '.mtnet_jax-lock'
  after = [name for name in _results(run) if name != lock]
  assert [run.exists(), after] == [there[0], [x for x in there[1] if x != lock]]
  assert not _results(out)


@pytest.mark.parametrize('flag', (True, False))
def test_another_evaluation_is_refused_before_it_computes(
  evaluated, tmp_path, flag
):
  out = tmp_path / 'mine'
  default = tmp_path / 'run/evaluations/lidc_nodules-phantom-test'
  flags = [f'--out={out}'] if flag else []

  def another():
    # A second process would do this while the first one predicts.
    with pytest.raises(errors.BusyError, match='wait for it, or choose'):
      evaluated(lambda: pytest.fail('it computes'), *flags)

  evaluated(another, *flags)
  assert _results(out if flag else default) == ['metrics.json', 'records.csv']
  with together.one_writer(out if flag else default):
    pass


def test_a_run_that_was_moved_before_is_evaluated(evaluated, tmp_path):
  """At its new path, and through a link."""
  _rename(tmp_path / 'run')
  (tmp_path / 'link').symlink_to('elsewhere')
  evaluated(lambda: None, run='link')
  evaluated(lambda: None, run='elsewhere')
  (found,) = (tmp_path / 'elsewhere/evaluations').iterdir()
  assert _results(found) == ['metrics.json', 'records.csv']


def test_the_folder_of_an_unfinished_run_is_refused(evaluated, tmp_path):
  other = made_run.write_results(tmp_path / 'other')
  for name in ('metrics.json', 'records.csv'):
    (other / name).unlink()
  before = _results(other)
  with pytest.raises(errors.InputError, match='other has a config.json, but'):
    evaluated(lambda: pytest.fail('it computes'), f'--out={other}')
  assert _results(other) == before
