"""Scoring a run on other nodules than its own."""

import csv
import json

import main_job
import numpy as np
import pytest

from mtnet_jax import evaluate
from mtnet_jax import input_pipeline

LIDC_DIR = main_job.ROOT.parent / 'shared' / 'lidc'


def test_real_nodules_are_scored_one_by_one(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  if not LIDC_DIR.exists():
    pytest.skip(f'no real CT in {LIDC_DIR}')
  workdir, _ = finished_run
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
  # One patient fills one split; there is no test split, so all are taken.
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
  # The patient is in fold 2: the run saw the outlines of its nodules.
  assert results['nodules_of_training_patients'] == 4
  assert 'CAUTION: 4' in done.stdout
  assert results['trained_on']['simulated'] is True


def test_records_hold_counts_and_metrics_of_each_nodule():
  # Truth: a 4 x 4 square. Coarse: shifted by two columns; fine: the truth.
  truth = np.zeros((1, 8, 8), np.uint8)
  truth[0, 2:6, 2:6] = 1
  nodules = input_pipeline.Nodules(
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
  (record,) = evaluate.make_records(nodules, outputs)
  # No nodule of LIDC-IDRI, so nobody knows its readers.
  assert record['reader_dice'] is record['fine_reader_dice'] is None
  assert record['nodule_id'] == 'n'
  assert record['simulated'] is True
  assert (record['label'], record['malignancy_probability']) == (1, 0.25)
  # A probability of exactly 0.5 counts as nodule.
  assert record['coarse_predicted'] == 16
  assert record['coarse_overlap'] == 8
  assert record['coarse_dice'] == pytest.approx(0.5)
  assert record['coarse_jaccard'] == pytest.approx(8 / 24)
  assert record['fine_dice'] == 1.0
  # What was not predicted has no column, and changes no other.
  for lacking in ('coarse', 'fine', 'class'):
    (bare,) = evaluate.make_records(
      nodules, {key: x for key, x in outputs.items() if key != lacking}
    )
    prefix = 'malignancy_probability' if lacking == 'class' else lacking
    assert bare == {
      key: x for key, x in record.items() if not key.startswith(prefix)
    }
