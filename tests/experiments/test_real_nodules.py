"""Real CT: the datasets built from it, the shipped models on it, training.

The crops of real nodules are not in this repository; the tests are skipped if
they are missing.
"""

import json
import subprocess
import sys

import main_job
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax import metrics
from mtnet_jax.data import lidc
from mtnet_jax.evaluation import calibration
from mtnet_jax.storage import shipped

_CROPS = main_job.ROOT.parent / 'shared' / 'lidc_crops'

pytestmark = [
  # Making their files and building from them takes five minutes.
  pytest.mark.long,
  pytest.mark.skipif(not _CROPS.exists(), reason=f'needs {_CROPS}'),
]


@pytest.fixture(scope='module', name='dicom_dir')
def _dicom_dir(make_once):
  """A folder with DICOM series of the crops."""
  pytest.importorskip('nibabel', reason='needs the extra nifti')

  def make(folder):
    subprocess.run(
      [sys.executable, _CROPS / 'make_dicom.py', f'--out={folder}'], check=True
    )

  return make_once('real_dicom', make)


def _built(make_once, dicom_dir, config):
  def make(folder):
    done = main_job.run(
      main_job.module(
        'tfds_lidc.build',
        f'--config={config}',
        f'--lidc_dir={dicom_dir}',
        f'--data_dir={folder}',
      )
    )
    assert done.returncode == 0, done.stderr[-3000:]

  return make_once(f'real_{config}', make)


@pytest.fixture(scope='module', name='data_dir')
def _data_dir(make_once, dicom_dir):
  """A TFDS folder with `lidc_nodules/paper`, built from the crops."""
  return _built(make_once, dicom_dir, 'paper')


def _load(data_dir, name='paper'):
  return {
    split: lidc.load_split(f'lidc_nodules/{name}', split, data_dir=data_dir)
    for split in ('train', 'validation', 'test')
  }


def test_the_paper_s_selection_of_the_crops(data_dir):
  splits = _load(data_dir)
  assert [len(data) for data in splits.values()] == [373, 135, 113]
  assert not any(data.simulated for data in splits.values())


def test_every_nodule_of_the_crops(make_once, dicom_dir):
  splits = _load(_built(make_once, dicom_dir, 'all'), 'all')
  assert sum(len(data) for data in splits.values()) == 817


@pytest.mark.parametrize('name', shipped.names())
def test_a_shipped_model_is_as_good_as_its_card_says(name, data_dir):
  """Within 0.2 points, since weights have 16 bits and processors differ."""
  model = mtnet_jax.load(name)
  nodules = _load(data_dir)['test']
  outputs = model.predict(nodules.image, nodules.info['pixel_spacing_mm'])
  expected = model.metrics['test']
  # The card leaves out nodules without a crop; its section on limits says so.
  counted = np.isin(
    nodules.info['nodule_id'], model.metrics['left_out'], invert=True
  )
  assert counted.sum() == expected['nodules']
  for key, masks in (('coarse', outputs.coarse_mask), ('fine', outputs.mask)):
    dice = metrics.segmentation_metrics(
      masks[counted][..., None], nodules.mask[counted][..., None]
    )['dice']
    np.testing.assert_allclose(
      np.mean(dice),
      expected['segmentation'][key]['dice']['value'],
      atol=0.002,
    )
  scores, labels = outputs.malignancy[counted], nodules.label[counted]
  np.testing.assert_allclose(
    metrics.area_under_roc(scores, labels, np.ones(len(labels))),
    expected['classification']['auc']['value'],
    atol=0.002,
  )
  np.testing.assert_allclose(
    calibration.brier(scores, labels, np.ones(len(labels))),
    expected['probabilities']['classification']['brier']['value'],
    atol=0.002,
  )


def _coarse_dice(folder):
  results = json.loads((folder / 'metrics.json').read_text())
  return results['test']['segmentation']['coarse']['dice']['value']


def test_two_epochs_on_real_nodules_improve_a_model_of_phantoms(
  finished_run, data_dir, tmp_path, compiled
):
  """Both are scored on the same nodules."""
  source, _ = finished_run
  done = main_job.run(
    main_job.module(
      'mtnet_jax.evaluate',
      f'--workdir={source}',
      '--dataset=lidc_nodules/paper',
      f'--data_dir={data_dir}',
      f'--out={tmp_path / "before"}',
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  done = main_job.run(
    main_job.small_job(
      tmp_path / 'run',
      data_dir,
      f'--config.start_from={source}',
      '--config.dataset.name=lidc_nodules/paper',
      '--config.dataset.fallback=',
      '--config.dataset.limit=0',
      "--config.stages=('coarse',)",
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert f'starts from {source}' in done.stdout
  after = _coarse_dice(tmp_path / 'run')
  # It gains tens of percentage points; 5 are more than rounding can make.
  assert after > _coarse_dice(tmp_path / 'before') + 0.05
