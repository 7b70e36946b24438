"""Directories that are moved or replaced while a run or a sweep uses them."""

import json

import pytest
import sweep_config

from mtnet_jax.data import lidc
from mtnet_jax.experiments import run as run_lib
from mtnet_jax.experiments import sweep_runs
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors


@pytest.mark.parametrize(
  ('replaced', 'message'), ((False, 'is gone'), (True, 'is another one now'))
)
def test_while_a_run_reads_its_dataset(
  phantom_data_dir, tmp_path, monkeypatch, replaced, message
):
  run = tmp_path / 'run'
  load = lidc.load_for_training

  def moving(*args, **kwargs):
    run.rename(tmp_path / 'elsewhere')
    if replaced:
      run.mkdir()
    return load(*args, **kwargs)

  monkeypatch.setattr(lidc, 'load_for_training', moving)
  config = sweep_config.get_config(str(phantom_data_dir)).base
  with pytest.raises(errors.InputError, match=f'run {message}.*this run wrote'):
    run_lib.run(config.copy_and_resolve_references(), run)
  assert run.exists() == replaced
  assert not replaced or not list(run.iterdir())


@pytest.fixture
def sweep(phantom_data_dir, tmp_path, monkeypatch):
  """Function (change): runs a sweep; calls `change` after its first point."""
  directory = tmp_path / 'sweep'
  monkeypatch.setattr(sweep_runs, '_in_short', lambda _: '')

  def run(change):
    trained = []

    def point(config, workdir, **_):
      """Writes the files of a finished run."""
      files.make_folder(workdir)
      workdir_lib.claim(workdir, config)
      (workdir / 'metrics.json').write_text(
        json.dumps({'simulated': True, 'diameter_only_model': {}, 'test': {}})
      )
      trained.append(workdir.name)
      if len(trained) == 1:
        change(directory)

    monkeypatch.setattr(run_lib, 'run', point)
    config = sweep_config.get_config(str(phantom_data_dir))
    try:
      sweep_runs.run(config, directory)
    finally:
      assert len(trained) == 1

  return run


def _rename(directory):
  directory.rename(directory.with_name('elsewhere'))


def _replace(directory):
  _rename(directory)
  directory.mkdir()


def _remove_its_file(directory):
  (directory / 'sweep.json').unlink()


def _change_its_file(directory):
  tree = json.loads((directory / 'sweep.json').read_text())
  (directory / 'sweep.json').write_text(json.dumps({**tree, 'name': 'other'}))


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    (_rename, 'is gone: .* while this sweep wrote'),
    (_replace, 'is another one now: .* while this sweep wrote'),
    (_remove_its_file, 'is not a sweep'),
    (_change_its_file, 'holds another sweep'),
  ),
)
def test_between_the_points_of_a_sweep(sweep, tmp_path, change, message):
  with pytest.raises(errors.InputError, match=message):
    sweep(change)
  if change in (_rename, _replace):
    directory = tmp_path / 'sweep'
    assert not directory.exists() or not list(directory.iterdir())


def test_a_run_cannot_start_in_the_directory_of_a_sweep(
  phantom_data_dir, tmp_path
):
  (tmp_path / 'sweep.json').write_text('{}')
  config = sweep_config.get_config(str(phantom_data_dir)).base
  with pytest.raises(errors.InputError, match='directory of a sweep'):
    workdir_lib.claim(tmp_path, config)
  assert not (tmp_path / 'config.json').exists()
