"""What a run has seen: its own nodules, and those its source has seen."""

import json
import shutil

import made_run
import numpy as np
import pytest
import step_job

from mtnet_jax.experiments import run as run_lib
from mtnet_jax.inference import packing
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.training import keep_seen
from tfds_lidc.nodules import selection

# Split -> patients, each with two nodules.
_OWN = {'train': 'ab', 'validation': 'c', 'test': 'd'}


def _splits(patients):
  """Returns split name -> the nodules x_1 and x_2 of each of its patients x."""
  splits = {}
  for split, names in patients.items():
    nodules = step_job.made_up_nodules(2 * len(names))
    nodules.info.update(
      nodule_id=np.array([f'{x}_{i}' for x in names for i in (1, 2)]),
      patient_id=np.repeat(list(names), 2),
    )
    splits[split] = nodules
  return splits


def _rows(use, patients):
  return {(f'{x}_{i}', x, use) for x in patients for i in (1, 2)}


_OWN_ROWS = _rows('train', 'ab') | _rows('validation', 'c')


def _config(source=''):
  config = made_run.config_of()
  with config.unlocked():
    config.start_from = str(source)
    config.start_from_dataset = 'lidc_nodules/phantom' if source else ''
  return config


def _gather(config, workdir, patients=None, say=None):
  return keep_seen.gather(
    config,
    workdir,
    _splits(patients or _OWN),
    say=say or (lambda line: pytest.fail(line)),
  )


def _source(made_run_dir, folder, rows):
  """Makes a finished run that has a list."""
  source = shutil.copytree(made_run_dir, folder)
  seen_lib.write(source / seen_lib.FILE, seen_lib.Seen(frozenset(rows)))
  return source


def test_the_nodules_of_a_run_are_written_once(tmp_path):
  seen = _gather(_config(), tmp_path)
  assert seen == seen_lib.Seen(frozenset(_OWN_ROWS))
  keep_seen.write(tmp_path, seen)
  path = tmp_path / seen_lib.FILE
  assert seen_lib.read(path) == seen
  assert 'd_1' not in path.read_text()
  before = path.stat().st_mtime_ns
  keep_seen.write(tmp_path, _gather(_config(), tmp_path))
  assert path.stat().st_mtime_ns == before


def test_a_list_of_another_run_is_refused(tmp_path):
  lacking = frozenset(_OWN_ROWS - {('c_2', 'c', 'validation')})
  seen_lib.write(tmp_path / seen_lib.FILE, seen_lib.Seen(lacking))
  with pytest.raises(errors.InputError, match='it belongs to another run'):
    keep_seen.write(tmp_path, _gather(_config(), tmp_path))


def test_the_list_includes_all_earlier_sources(made_run_dir, tmp_path):
  """A third run starts from (a bundle of) a second, and that from a first."""
  first = _source(made_run_dir, tmp_path / 'first', _rows('train', 'x'))
  second = shutil.copytree(made_run_dir, tmp_path / 'second')
  keep_seen.write(
    second,
    _gather(
      _config(first), second, {'train': 'y', 'validation': 'z', 'test': 'd'}
    ),
  )
  packing.write(second, tmp_path / 'bundle')
  expected = (
    _OWN_ROWS
    | _rows('train', 'x')
    | _rows('train', 'y')
    | _rows('validation', 'z')
  )
  for source in (second, tmp_path / 'bundle'):
    found = _gather(_config(source), tmp_path / 'third')
    assert found == seen_lib.Seen(frozenset(expected))


def test_a_run_resumes_when_its_source_is_gone(made_run_dir, tmp_path):
  source = _source(made_run_dir, tmp_path / 'source', _rows('train', 'x'))
  run = tmp_path / 'run'
  run.mkdir()
  config = _config(source)
  keep_seen.write(run, _gather(config, run))
  shutil.rmtree(source)
  keep_seen.write(run, _gather(config, run))
  assert seen_lib.read(run / seen_lib.FILE).rows == _OWN_ROWS | _rows(
    'train', 'x'
  )


@pytest.mark.parametrize('gone', [False, True])
def test_a_source_without_a_list_has_seen_its_folds(
  made_run_dir, tmp_path, gone
):
  lines = []
  source = tmp_path / 'gone' if gone else made_run_dir
  found = _gather(_config(source), tmp_path, say=lines.append)
  assert found.rows == _OWN_ROWS | {
    (n.nodule_id, n.patient_id, n.split)
    for n in selection.clusters()
    if n.split != 'test'
  }
  (line,) = lines
  assert f'{source} has no list' in line


@pytest.mark.parametrize(
  ('seen', 'own', 'num_seen'),
  [
    # Both nodules of patient d count, although the source has seen one.
    ({('d_1', 'd', 'train')}, _OWN, 2),
    ({('d_7', 'd', 'validation')}, _OWN, 2),
    # The run itself divides patient d: only the same nodules count.
    (
      {('d_1', 'd', 'train'), ('d_7', 'd', 'train')},
      {'train': 'ad', 'validation': 'c', 'test': 'd'},
      1,
    ),
  ],
)
def test_a_source_that_has_seen_test_nodules_is_refused(
  made_run_dir, tmp_path, seen, own, num_seen
):
  source = _source(made_run_dir, tmp_path / 'source', seen)
  with pytest.raises(
    errors.InputError, match=f'has seen {num_seen} of the 2 nodules'
  ):
    _gather(_config(source), tmp_path / 'run', own)


def test_a_refused_source_leaves_the_run_directory_free(
  made_run_dir, tmp_path, monkeypatch
):
  source = _source(made_run_dir, tmp_path / 'source', {('d_1', 'd', 'train')})
  monkeypatch.setattr(
    run_lib.lidc, 'load_for_training', lambda *_, **__: _splits(_OWN)
  )
  monkeypatch.setattr(run_lib.choice, 'choose_dataset', lambda x, **_: x)
  config = made_run.config_of()
  with config.unlocked():
    config.start_from = str(source)
  with pytest.raises(errors.InputError, match='has seen 2 of the 2'):
    run_lib.run(config, tmp_path / 'run', say=lambda *_: None)
  assert not (tmp_path / 'run' / 'config.json').exists()


def test_a_finished_run_of_an_earlier_version_gets_its_list(
  made_run_dir, tmp_path, monkeypatch
):
  """The training command writes it when it is run again."""
  run = shutil.copytree(made_run_dir, tmp_path / 'run')
  tree = json.loads((run / 'config.json').read_text())
  monkeypatch.setattr(
    run_lib.lidc, 'load_for_training', lambda *_, **__: _splits(_OWN)
  )
  monkeypatch.setattr(run_lib.choice, 'choose_dataset', lambda x, **_: x)
  monkeypatch.setattr(
    run_lib.nodules, 'fingerprint', lambda _: tree['dataset']['fingerprint']
  )
  config = workdir_lib.read_config(run)
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.dataset.spacing_mm = 0.0
  run_lib.run(config, run, say=lambda *_: None)
  assert seen_lib.read(run / seen_lib.FILE).rows == _OWN_ROWS
