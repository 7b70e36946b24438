"""Evaluation of runs on nodules other than their own test set."""

import csv
import json
import pathlib
import shutil
import sys

import made_run
import main_job
import numpy as np
import pytest

from mtnet_jax import evaluate
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import records
from mtnet_jax.inference import members
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

LIDC_DIR = main_job.ROOT.parent / 'shared' / 'lidc'


def test_real_nodules_have_a_record_each(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  if not LIDC_DIR.exists():
    pytest.skip(f'no real CT in {LIDC_DIR}')
  workdir = shutil.copytree(finished_run[0], tmp_path / 'run')
  # Pretend that the run has seen a phantom of this patient, which the limit of
  # its dataset prevented.
  before = seen_lib.read(workdir / seen_lib.FILE)
  assert 'LIDC-IDRI-0003' not in seen_lib.patients(before)
  more = ('LIDC-IDRI-0003_14_3', 'LIDC-IDRI-0003', 'train')
  seen_lib.write(workdir / seen_lib.FILE, seen_lib.Seen(before.rows | {more}))
  built = main_job.run(
    main_job.module(
      'tfds_lidc.build',
      '--config=all',
      f'--lidc_dir={LIDC_DIR}',
      f'--data_dir={tmp_path}',
    )
  )
  assert built.returncode == 0, built.stderr[-2000:]
  done = main_job.run(
    main_job.module(
      'mtnet_jax.evaluate',
      f'--workdir={workdir}',
      '--dataset=lidc_nodules/all',
      f'--data_dir={tmp_path}',
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert 'trained on SIMULATED ones' in done.stdout
  # One patient fills only one split. There is no test split, so all are used.
  (out,) = (workdir / 'evaluations').glob('lidc_nodules-all-*')
  with open(out / 'records.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 4
  assert {row['patient_id'] for row in rows} == {'LIDC-IDRI-0003'}
  assert {row['simulated'] for row in rows} == {'False'}
  for row in rows:
    assert row['nodule_id'] in done.stdout
    assert 0 <= float(row['fine_dice']) <= 1
    assert 0 <= float(row['malignancy_probability']) <= 1
  results = json.loads((out / 'metrics.json').read_text())
  assert results['simulated'] is False
  # All four nodules are of a patient that the run has seen.
  assert results['nodules_of_training_patients'] == 4
  assert results['seen'] == {
    'compared_by': 'id',
    'nodules_of_patients_trained_on': 4,
    'nodules_of_patients_chosen_by': 0,
  }
  assert 'CAUTION: 4 of these 4 nodules' in done.stdout
  assert 'assumed to have seen' not in done.stdout
  assert results['trained_on']['simulated'] is True


def test_records_hold_counts_and_metrics_of_each_nodule():
  # Coarse is the truth, a 4 x 4 square, shifted by two columns. Fine equals it.
  truth = np.zeros((1, 8, 8), np.uint8)
  truth[0, 2:6, 2:6] = 1
  nodules = nodules_lib.Nodules(
    image=np.zeros((1, 8, 8), np.int16),
    mask=truth,
    votes=truth,
    label=np.array([1]),
    info={'nodule_id': np.array(['n']), 'diameter_mm': np.array([4.5])},
    simulated=True,
  )
  outputs = {
    'coarse': np.roll(truth, 2, axis=2) * 0.5,
    'fine': truth * 0.9,
    'class': np.array([0.25]),
  }
  (record,) = records.make_records(nodules, outputs)
  # The nodule is not in LIDC-IDRI, so its readers are unknown.
  assert record['reader_dice'] is record['fine_reader_dice'] is None
  assert record['nodule_id'] == 'n'
  assert record['simulated'] is True
  assert (record['label'], record['malignancy_probability']) == (1, 0.25)
  # A probability of exactly 0.5 belongs to the mask.
  assert record['coarse_predicted'] == 16
  assert record['coarse_overlap'] == 8
  assert record['coarse_dice'] == pytest.approx(0.5)
  assert record['coarse_jaccard'] == pytest.approx(8 / 24)
  assert record['fine_dice'] == 1.0
  # A missing output has no columns, and does not change the others.
  for lacking in ('coarse', 'fine', 'class'):
    (bare,) = records.make_records(
      nodules, {key: x for key, x in outputs.items() if key != lacking}
    )
    prefix = 'malignancy_probability' if lacking == 'class' else lacking
    assert bare == {
      key: x for key, x in record.items() if not key.startswith(prefix)
    }


def _run_evaluate(monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['evaluate', *map(str, arguments)])
  evaluate.main()


def _evaluate(monkeypatch, *arguments):
  """Runs the command, and returns its metrics.json and records."""
  _run_evaluate(monkeypatch, *arguments)
  out = pathlib.Path(arguments[-1].removeprefix('--out='))
  with open(out / 'records.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  return json.loads((out / 'metrics.json').read_text()), rows


def _config(data_dir, **dataset):
  config = made_run.config_of()
  with config.unlocked():
    config.dataset.update(data_dir=str(data_dir), **dataset)
  return config


def test_runs_and_symmetries_are_scored_together(
  tmp_path, phantom_data_dir, monkeypatch, capsys
):
  config = _config(phantom_data_dir)
  runs = [
    made_run.write(tmp_path / name, config, seed=seed)
    for name, seed in (('a', 3), ('b', 4))
  ]

  def evaluate_runs(*paths, name):
    return _evaluate(
      monkeypatch,
      '--workdir',
      *paths,
      '--symmetries',
      '--limit=12',
      f'--out={tmp_path / name}',
    )

  alone = [evaluate_runs(run, name=f'{run.name}-alone') for run in runs]
  both, rows = evaluate_runs(*runs, name='both')
  assert [member['workdir'] for member in both['members']] == list(
    map(str, runs)
  )
  assert both['symmetries'] is True
  assert both['nodules_of_training_patients'] == 0

  def values(rows, key):
    return np.array([float(row[key]) for row in rows])

  # The mean is that of the runs' means; the variance is that within plus that
  # between the runs.
  malignancy = [values(rows, 'malignancy_probability') for _, rows in alone]
  together = values(rows, 'malignancy_probability')
  np.testing.assert_allclose(together, np.mean(malignancy, 0), atol=1e-6)
  within = np.mean([values(rows, 'malignancy_sd') ** 2 for _, rows in alone], 0)
  np.testing.assert_allclose(
    values(rows, 'malignancy_sd') ** 2,
    within + np.var(malignancy, 0),
    atol=1e-6,
  )
  assert within.min() > 0 and values(rows, 'fine_uncertainty').min() > 0
  # The baseline of averaging is the mean over runs, without symmetries.
  found = both['averaging']
  assert found['nodules'] == 12
  for output, metric in (
    ('fine', 'dice'),
    ('coarse', 'recall'),
    ('class', 'auc'),
  ):
    single = np.mean(
      [one['averaging']['single'][output][metric]['value'] for one, _ in alone]
    )
    change = found['averaged_minus_single'][output][metric]
    assert found['single'][output][metric]['value'] == pytest.approx(single)
    tree = both['test']['segmentation'].get(output)
    averaged = (tree or both['test']['classification'])[metric]['value']
    assert change['value'] == pytest.approx(averaged - single)
    low, high = change['ci95']
    assert low <= change['value'] <= high
  assert 'Effect of averaging (2 runs x 8' in capsys.readouterr().out


def test_runs_of_other_folds_have_seen_the_test_nodules(
  tmp_path, phantom_data_dir, monkeypatch, capsys
):
  runs = [
    made_run.write(
      tmp_path / f'turned{turn}', _config(phantom_data_dir, rotate_folds=turn)
    )
    for turn in (0, 1)
  ]
  results, rows = _evaluate(
    monkeypatch, '--workdir', *runs, '--limit=4', f'--out={tmp_path / "out"}'
  )
  # Fold 4 is the test fold of the first run; the other one has seen it.
  assert {row['fold'] for row in rows} == {'4'}
  assert results['nodules_of_training_patients'] == 4
  assert results['averaging'] == {'nodules': 0, 'patients': 0}
  # Both runs have equal weights, so their outputs do not differ.
  assert {float(row['malignancy_sd']) for row in rows} == {0}
  output = capsys.readouterr().out
  assert 'CAUTION: 4 of these 4 nodules belong to patients' in output
  assert 'of at least one of the runs' in output
  assert 'effect of averaging cannot be measured' in output


def test_a_run_of_its_own_folds_is_compared_by_patient(
  tmp_path, phantom_data_dir, monkeypatch, capsys
):
  """It has trained on one third of the test patients, validated on another."""
  data = lidc.load_split(
    'lidc_nodules/phantom', 'test', data_dir=phantom_data_dir, limit=12
  )
  patients = sorted(set(data.info['patient_id'].tolist()))
  # It has seen other nodules of these patients.
  seen = seen_lib.Seen(
    frozenset(
      (f'{patient}_x', patient, use)
      for use, names in (
        ('train', patients[::3]),
        ('validation', patients[1::3]),
      )
      for patient in names
    )
  )
  run = made_run.write(tmp_path / 'run', _config(phantom_data_dir))
  seen_lib.write(run / seen_lib.FILE, seen)
  results, rows = _evaluate(
    monkeypatch,
    '--workdir',
    run,
    '--limit=12',
    '--symmetries',
    f'--out={tmp_path / "out"}',
  )
  trained, chosen = (
    sum(row['patient_id'] in names for row in rows)
    for names in (patients[::3], patients[1::3])
  )
  assert min(trained, chosen) > 0 and trained + chosen < len(rows) == 12
  assert results['seen'] == {
    'compared_by': 'id',
    'nodules_of_patients_trained_on': trained,
    'nodules_of_patients_chosen_by': chosen,
  }
  assert results['nodules_of_training_patients'] == trained + chosen
  # The effect of averaging is measured on the other patients.
  assert results['averaging']['nodules'] == 12 - trained - chosen
  assert results['averaging']['patients'] == len(patients[2::3])
  assert (
    f'CAUTION: {trained + chosen} of these 12 nodules belong to patients used'
    f' in training ({trained}) or model selection ({chosen})'
  ) in capsys.readouterr().out
  assert results['fingerprint'] == nodules_lib.fingerprint({'test': data})


def test_results_of_other_runs_are_not_overwritten(
  tmp_path, phantom_data_dir, monkeypatch, capsys
):
  runs = {}
  for seed, name in enumerate('abc'):
    config = _config(phantom_data_dir)
    with config.unlocked():
      config.seed = seed
    runs[name] = made_run.write_results(tmp_path / name, config)
  folder = runs['a'] / 'evaluations'

  def predict(config, variables, nodules, *, progress):
    rng = np.random.default_rng(config.seed)
    shape = nodules.image.shape
    return {
      'coarse': rng.random(shape, np.float32),
      'fine': rng.random(shape, np.float32),
      'class': rng.random(len(nodules), np.float32),
    }

  monkeypatch.setattr(members.outputs, 'predict', predict)
  monkeypatch.setattr(members.workdir, 'load_variables', lambda *_: None)

  def new_folders_of(*names):
    before = set(folder.glob('*'))
    _run_evaluate(
      monkeypatch, '--workdir', *(runs[x] for x in names), '--limit=4'
    )
    return sorted(set(folder.glob('*')) - before)

  (both,) = new_folders_of('a', 'b')
  assert both.name == 'lidc_nodules-phantom-test-limit4-ensemble2'
  kept = (both / 'records.csv').read_bytes()
  (other,) = new_folders_of('a', 'c')
  assert other.name.startswith(f'{both.name}-')
  assert (both / 'records.csv').read_bytes() == kept
  assert (other / 'records.csv').read_bytes() != kept
  # The same evaluation uses the same folder again.
  assert new_folders_of('a', 'b') == []
  output = capsys.readouterr().out
  # These runs have no list of the nodules that they have seen.
  assert output.count('has no seen.csv: it is assumed to have seen all of') == 3
  with pytest.raises(errors.InputError, match='choose another --out'):
    _run_evaluate(
      monkeypatch, '--workdir', runs['a'], '--limit=4', f'--out={runs["b"]}'
    )
