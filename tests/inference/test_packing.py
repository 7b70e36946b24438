"""Bundles of several runs, with symmetries, calibration or half precision."""

import json
import shutil
import sys

import made_run
import numpy as np
import pytest
import safetensors.numpy

import mtnet_jax
from mtnet_jax import bundle
from mtnet_jax import export
from mtnet_jax.evaluation import calibration
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import packing
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import shipped
from mtnet_jax.system import errors

_PATCHES = made_run.patches(3)


def test_an_average_loads_as_the_ensemble_of_its_runs(runs, averaged):
  model = mtnet_jax.load(averaged)
  assert (model.name, model.symmetries) == ('both', True)
  expected = ensemble.Ensemble(
    [mtnet_jax.load(run) for run in runs], symmetries=True
  ).predict(_PATCHES, 0.7)
  found = model.predict(_PATCHES, 0.7)
  np.testing.assert_array_equal(found.mask, expected.mask)
  np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
  assert model.temperature != 1
  np.testing.assert_allclose(
    found.malignancy,
    calibration.tempered(expected.malignancy, model.temperature),
    atol=1e-6,
  )
  assert found.malignancy_members.shape == (16, 3)


def test_the_temperature_is_fitted_to_the_validation_split(averaged):
  records = made_run.records()
  known = [row for row in records if row['label'] >= 0]
  expected = calibration.fit_temperature(
    [row['malignancy_probability'] for row in known],
    [row['label'] for row in known],
  )
  manifest = json.loads((averaged / 'manifest.json').read_text())
  assert manifest['format'] == 2
  assert manifest['members'] == 2
  np.testing.assert_allclose(manifest['temperature'], expected, rtol=1e-6)
  card = (averaged / 'README.md').read_text()
  assert f'temperature of {expected:.3f}' in card
  assert 'its calibration is described below' in card
  assert 'mean of 2 trained models (seed 1 and 2), each applied to' in card
  metrics = json.loads((averaged / 'metrics.json').read_text())
  assert sum(row['nodules'] for row in metrics['calibration']['curve']) == len(
    known
  )


def test_one_run_alone_can_be_calibrated(runs, tmp_path):
  run = shutil.copytree(runs[0], tmp_path / 'one')
  shutil.rmtree(run / 'evaluations')
  with pytest.raises(errors.InputError, match='evaluate.*--split=validation'):
    packing.write(run, tmp_path / 'out', calibrate=True)
  made_run.write_evaluation([run], 'validation', symmetries=False, seeds=(1,))
  packing.write(run, tmp_path / 'out', calibrate=True)
  plain, model = mtnet_jax.load(run), mtnet_jax.load(tmp_path / 'out')
  np.testing.assert_allclose(
    model.predict(_PATCHES, 0.7).malignancy,
    calibration.tempered(
      plain.predict(_PATCHES, 0.7).malignancy, model.temperature
    ),
    atol=1e-6,
  )


def test_half_precision_rounds_parameters_only(runs, tmp_path):
  for float16 in (False, True):
    packing.write(runs[0], tmp_path / str(float16), float16=float16)
  wide, narrow = (
    safetensors.numpy.load_file(tmp_path / x / 'weights.safetensors')
    for x in ('False', 'True')
  )
  for name, value in wide.items():
    kept = np.float32 if '/batch_stats/' in name else np.float16
    assert narrow[name].dtype == kept
    np.testing.assert_array_equal(narrow[name], value.astype(kept))
  left, right = (
    mtnet_jax.load(tmp_path / x).predict(_PATCHES, 0.7)
    for x in ('False', 'True')
  )
  np.testing.assert_allclose(left.probability, right.probability, atol=0.02)


def test_nodules_left_out_are_named_and_not_counted(runs, tmp_path):
  packing.write(
    runs,
    tmp_path / 'out',
    symmetries=True,
    leave_out=['nodule-1'],
    note='Crops of CT.',
  )
  metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
  assert metrics['test']['nodules'] == len(made_run.records()) - 1
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert 'Crops of CT. Left out of all results: nodule-1.' in card


def test_only_the_name_of_the_starting_run_is_kept(runs, tmp_path):
  folders = [shutil.copytree(x, tmp_path / x.name) for x in runs]
  for folder in folders:
    config = json.loads((folder / 'config.json').read_text())
    config['start_from'] = '/home/private/phantoms'
    config['start_from_dataset'] = 'lidc_nodules/phantom'
    (folder / 'config.json').write_text(json.dumps(config))
  packing.write(folders, tmp_path / 'out', symmetries=True)
  for path in (tmp_path / 'out').iterdir():
    assert b'private' not in path.read_bytes()
  assert mtnet_jax.load(tmp_path / 'out').models[0].config.start_from == (
    'phantoms'
  )


def test_an_average_that_was_not_evaluated_is_refused(runs, tmp_path):
  with pytest.raises(errors.InputError) as error:
    packing.write(runs, tmp_path / 'out')
  assert (
    f'python -m mtnet_jax.evaluate --workdir {runs[0]} {runs[1]} --split=test'
    in str(error.value)
  )
  assert not (tmp_path / 'out').exists()


def test_results_of_other_runs_are_refused(runs, tmp_path):
  swapped = [shutil.copytree(runs[1], tmp_path / 'two'), runs[0]]
  shutil.copytree(runs[0] / 'evaluations', tmp_path / 'two' / 'evaluations')
  with pytest.raises(errors.InputError, match='results of other runs'):
    packing.write(swapped, tmp_path / 'out', symmetries=True)


def test_results_of_nodules_that_a_run_has_seen_are_refused(runs, tmp_path):
  folds = [shutil.copytree(x, tmp_path / x.name) for x in runs]
  config = json.loads((folds[1] / 'config.json').read_text())
  config['dataset']['rotate_folds'] = 1
  (folds[1] / 'config.json').write_text(json.dumps(config))
  (found,) = (folds[0] / 'evaluations').glob('*-test-*')
  described = json.loads((found / 'metrics.json').read_text())
  described['members'][1]['rotate_folds'] = 1
  (found / 'metrics.json').write_text(json.dumps(described))
  with pytest.raises(errors.InputError, match='no card may show'):
    packing.write(folds, tmp_path / 'out', symmetries=True)


@pytest.mark.parametrize(
  'changes',
  [
    {'members': 0},
    {'members': 1000},
    {'members': '2'},
    {'members': 3},
    {'members': True},
    {'temperature': 0.0},
    {'temperature': 'nan'},
    {'temperature': float('nan')},
  ],
)
def test_a_manifest_with_wrong_values_is_refused(averaged, tmp_path, changes):
  copy = shutil.copytree(averaged, tmp_path / 'copy')
  manifest = json.loads((copy / 'manifest.json').read_text())
  (copy / 'manifest.json').write_text(json.dumps({**manifest, **changes}))
  with pytest.raises(errors.InputError, match='copy'):
    mtnet_jax.load(copy)


def test_a_shipped_model_loads_by_its_name(averaged, tmp_path, monkeypatch):
  shutil.copytree(averaged, tmp_path / 'shipped' / 'tiny')
  monkeypatch.setattr(shipped, '_FOLDER', tmp_path / 'shipped')
  monkeypatch.chdir(tmp_path)
  assert mtnet_jax.load('tiny').name == 'both'
  with pytest.raises(errors.InputError, match=r'tony does not exist.*\(tiny\)'):
    mtnet_jax.load('tony')


def test_the_command_packs_an_average(runs, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'out'
  arguments = ['bundle', '--run', *map(str, runs), f'--out={out}']
  monkeypatch.setattr(
    sys, 'argv', [*arguments, '--symmetries', '--calibrate', '--float16']
  )
  bundle.main()
  assert 'To load it: mtnet_jax.load' in capsys.readouterr().out
  assert len(mtnet_jax.load(out).models) == 2


def test_an_average_is_not_exported_as_stablehlo(averaged, tmp_path):
  with pytest.raises(errors.InputError, match='average of 2 networks and'):
    export.write(averaged, tmp_path / 'program')
  assert not (tmp_path / 'program').exists()


@pytest.mark.parametrize(
  'name, key',
  (
    ('metrics.json', 'versions'),
    ('metrics.json', 'test'),
    ('config.json', 'window'),
    ('config.json', 'dataset'),
    ('config.json', 'coarse_mask'),
  ),
)
def test_an_odd_bundle_is_refused_first(
  packed, tmp_path, monkeypatch, name, key
):
  copy = shutil.copytree(packed, tmp_path / 'copy')
  tree = json.loads((copy / name).read_text())
  tree[key] = {} if isinstance(tree.pop(key), dict) else 'odd'
  if key == 'versions':
    del tree[key]
  (copy / name).write_text(json.dumps(tree))
  manifest = json.loads((copy / 'manifest.json').read_text())
  manifest['files'][name] = bundle_files.file_digest(copy / name)
  (copy / 'manifest.json').write_text(json.dumps(manifest))
  checked = []
  monkeypatch.setattr(packing, '_check', lambda *_: checked.append(1))
  with pytest.raises(errors.InputError, match='copy(/config| is damaged)'):
    packing.write(copy, tmp_path / 'out')
  assert not checked


def _evaluated(runs, tmp_path, members):
  """Copies a run, whose evaluation has `members` as its metrics.json.

  Returns:
    The folders of the run and of the evaluation.
  """
  run = shutil.copytree(runs[0], tmp_path / 'run')
  shutil.rmtree(run / 'evaluations')
  made_run.write_evaluation([run], 'validation', symmetries=False, seeds=(1,))
  (found,) = (run / 'evaluations').iterdir()
  if members is not None:
    (found / 'metrics.json').write_text(members)
  return run, found


@pytest.mark.parametrize(
  'members',
  ('[]', '{"members":[{}]}', '{"members":5}', '{"members":[5]}'),
)
def test_an_odd_evaluation_is_refused(runs, tmp_path, members):
  run, found = _evaluated(runs, tmp_path, members)
  with pytest.raises(
    errors.InputError, match=f'{found}/metrics.json is damaged: .*evaluate'
  ):
    packing.write(run, tmp_path / 'out', calibrate=True)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('column', ('nodule_id', 'label'))
def test_odd_records_are_refused(runs, tmp_path, column):
  run, found = _evaluated(runs, tmp_path, None)
  path = found / 'records.csv'
  path.write_text(path.read_text().replace(column, 'odd', 1))
  with pytest.raises(errors.InputError, match=f'{run} is damaged'):
    packing.write(run, tmp_path / 'out', calibrate=True)
