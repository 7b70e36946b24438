"""A user's own lists of nodules and folds, from the file to a run."""

import contextlib
import json
import pathlib

import made_run
import main_job
import project_configs
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.data import lidc
from mtnet_jax.experiments import run as run_lib
from mtnet_jax.system import errors
from mtnet_jax.training import from_run
from tfds_lidc.nodules import selection

# The split of each fold.
_SPLIT_OF_FOLD = ('train', 'train', 'train', 'validation', 'test')


@pytest.fixture(scope='module', name='ours')
def _ours(tmp_path_factory):
  """(nodule id -> fold, file of both), for 15 nodules of 15 patients."""
  patients = {}
  for nodule in selection.select(selection.POLICIES['paper']):
    # Five benign nodules alternate with five malignant ones, so that each fold
    # has both.
    if nodule.label == len(patients) // 5 % 2:
      patients.setdefault(nodule.patient_id, nodule)
    if len(patients) == 15:
      break
  folds = {n.nodule_id: k % 5 for k, n in enumerate(patients.values())}
  path = tmp_path_factory.mktemp('lists') / 'ours.csv'
  path.write_text(
    'nodule_id;fold\n' + ''.join(f'{i};{k}\n' for i, k in folds.items())
  )
  return folds, path


@pytest.fixture(scope='module', name='built')
def _built(ours, tmp_path_factory):
  """The config of a run on the listed nodules, which the command has built."""
  _, path = ours
  data_dir = tmp_path_factory.mktemp('data')
  done = main_job.run(
    main_job.module(
      'tfds_lidc.build',
      '--config=phantom',
      f'--data_dir={data_dir}',
      f'--policy=nodules={path},folds={path}',
    )
  )
  assert done.returncode == 0, done.stderr
  assert 'nodules: 15 of the 15 listed ones are selected' in done.stdout
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.dataset.data_dir = str(data_dir)
    config.dataset.name = f'lidc_nodules/phantom?nodules={path},folds={path}'
  return config


def _with_dataset(config, name):
  changed = config.copy_and_resolve_references()
  with changed.unlocked():
    changed.dataset.name = name
  return changed


def test_listed_nodules_have_their_folds_with_and_without_the_file(ours, built):
  folds, path = ours
  lasting = lidc.lasting_name(built.dataset.name)
  assert str(path) not in lasting
  for name in (built.dataset.name, lasting):
    splits = lidc.load_splits(_with_dataset(built, name).dataset)
    for split, data in splits.items():
      assert dict(
        zip(data.info['nodule_id'], data.info['fold'], strict=True)
      ) == {i: k for i, k in folds.items() if _SPLIT_OF_FOLD[k] == split}
  # TFDS opens the dataset by its name alone.
  source = tfds.data_source(
    lasting, split='test', data_dir=built.dataset.data_dir
  )
  assert {r['nodule_id'].decode() for r in source} == {
    i for i, k in folds.items() if k == 4
  }
  (info,) = pathlib.Path(built.dataset.data_dir).glob(
    f'{lasting}/*/dataset_info.json'
  )
  assert 'FILE' in info.read_text() and str(path) not in info.read_text()


def test_run_resumes_by_either_name_of_the_dataset(built, tmp_path):
  def prepare(config):
    with contextlib.ExitStack() as locks:
      run_lib._prepare(
        config, tmp_path / 'run', lambda *_: None, locks, None, None
      )

  prepare(built)
  stored = json.loads((tmp_path / 'run' / 'config.json').read_text())
  lasting = lidc.lasting_name(built.dataset.name)
  assert stored['dataset']['name'] == lasting
  prepare(built)
  prepare(_with_dataset(built, lasting))


def test_run_on_own_folds_does_not_start_from_a_run_on_the_usual_folds(
  built, made_run_dir, tmp_path
):
  config = built.copy_and_resolve_references()
  with config.unlocked():
    config.update(made_run.TINY)
    config.start_from = str(made_run_dir)
  with pytest.raises(
    errors.InputError,
    match='other folds .*the folds of its dataset=the usual ones',
  ):
    from_run.fill_in(config, tmp_path)


def test_error_of_a_missing_dataset_of_a_list_names_the_option(tmp_path):
  name = 'lidc_nodules/phantom-nodules_0123456789'
  with pytest.raises(errors.InputError, match=r'phantom\?nodules=FILE'):
    lidc.builder(name, str(tmp_path))
