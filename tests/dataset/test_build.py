"""Builds from end to end: records hold the input, errors are reported."""

import dataclasses
import shutil
import subprocess
import sys

import build_job
import dicom_files
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_lidc import build
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch as phantom_patch

_FEW = tfds.download.DownloadConfig(max_examples_per_split=4)


@pytest.fixture(scope='module')
def phantoms(tmp_path_factory):
  """A build of four phantoms per split."""
  return build.build(
    'phantom', data_dir=tmp_path_factory.mktemp('data'), download_config=_FEW
  )


def test_importing_the_package_loads_neither_jax_nor_tensorflow():
  code = (
    'import sys, tfds_lidc; '
    'print({"jax", "tensorflow", "pylidc", "mtnet_jax"}'
    ' & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code],
    check=True,
    text=True,
    capture_output=True,
  )
  assert done.stdout.strip() == 'set()'


def test_one_patient_builds_without_the_other_splits(built):
  # All nodules of LIDC-IDRI-0003 are in fold 2.
  assert {name: s.num_examples for name, s in built.info.splits.items()} == {
    'train': 4
  }
  assert built.info.metadata['scans_used'] == 1
  # 883 scans of LIDC-IDRI have nodules.
  assert built.info.metadata['scans_missing'] == 882
  assert built.info.metadata['simulated'] is False


def test_records_hold_image_votes_mask_and_ratings(built):
  records = build_job.records(built)
  nodules = dicom_files.nodules()
  assert set(records) == {n.nodule_id for n in nodules}
  for nodule in nodules:
    record = records[nodule.nodule_id]
    patch = patches.place(
      annotations.reader_masks(nodule.scan_id, nodule.annotation_ids), (1, 2)
    )
    rows, cols = np.mgrid[
      patch.row - 32 : patch.row + 32, patch.col - 32 : patch.col + 32
    ]
    assert record['image'].dtype == np.int16
    assert record['votes'].dtype == record['mask'].dtype == np.uint8
    np.testing.assert_array_equal(record['image'][..., 0], rows - cols)
    np.testing.assert_array_equal(record['votes'][..., 0], patch.votes)
    np.testing.assert_array_equal(
      record['mask'][..., 0], 2 * record['votes'][..., 0] >= nodule.num_readers
    )
    for name, ratings in nodule.ratings.items():
      np.testing.assert_array_equal(record[name], ratings)
    for name in ('label', 'num_readers', 'fold'):
      assert record[name] == getattr(nodule, name)
    for name in ('diameter_mm', 'pixel_spacing_mm', 'slice_thickness_mm'):
      assert record[name] == np.float32(getattr(nodule, name))
    assert record['patient_id'] == b'LIDC-IDRI-0003'
    assert record['series_uid'].decode() == dicom_files.SERIES_UID
    assert record['slice_index'] == patch.slice_index


def test_labels_follow_from_the_mean_ratings(built):
  # The ratings are (2,), (5, 5, 3, 4), (4, 4, 3, 2) and (4, 5, 3, 2).
  assert {
    nodule_id[-1]: int(r['label'])
    for nodule_id, r in build_job.records(built).items()
  } == {'1': 0, '2': 1, '3': 1, '4': 1}


def test_open_label_is_stored(tmp_path, synthetic_ct, monkeypatch):
  # A mean rating of 3 is neither benign nor malignant.
  changed = [
    dataclasses.replace(n, malignancy=(3,) * n.num_readers)
    for n in dicom_files.nodules()
  ]
  monkeypatch.setattr(selection, 'clusters', lambda: tuple(changed))
  records = build_job.records(
    build.build('all', lidc_dir=synthetic_ct, data_dir=tmp_path)
  )
  assert [int(r['label']) for r in records.values()] == [-1] * 4


def test_dataset_opens_by_name_and_by_directory(built):
  data_dir = built.data_path.parents[2]
  expected = build_job.records(built)
  by_name = tfds.data_source(
    'lidc_nodules/all', split='train', data_dir=data_dir
  )
  by_directory = tfds.builder_from_directory(built.data_dir)
  for source in (by_name, by_directory.as_data_source('train')):
    assert len(source) == 4
    for record in source:
      np.testing.assert_array_equal(
        record['image'], expected[record['nodule_id'].decode()]['image']
      )
  assert by_directory.info.metadata['scans_used'] == 1


@dicom_files.needs_real_series
def test_build_of_the_real_series_has_its_hu(tmp_path):
  returncode, stdout, stderr = build_job.run(
    '--config=all',
    f'--lidc_dir={dicom_files.REAL_DIR}',
    f'--data_dir={tmp_path}',
  )
  assert returncode == 0, stderr
  assert '4 records (train 4)' in stdout
  assert '1 used, 882 not on this disk' in stdout
  series = dicom_files.series_of(dicom_files.REAL_DIR)[dicom_files.SERIES_UID]
  records = build_job.records(build.build('all', data_dir=tmp_path))
  for nodule in dicom_files.nodules():
    patch = patches.place(
      annotations.reader_masks(nodule.scan_id, nodule.annotation_ids), (1, 2)
    )
    # The files are in the database's order of z, so a slice index of the
    # database is an index into the files.
    hu = dicom_files.read_hu(series.slices[patch.slice_index].path)
    np.testing.assert_array_equal(
      records[nodule.nodule_id]['image'][..., 0],
      hu[patch.row - 32 : patch.row + 32, patch.col - 32 : patch.col + 32],
    )


def test_additional_slice_does_not_shift_patches(tmp_path, synthetic_ct, built):
  shutil.copytree(synthetic_ct, tmp_path / 'ct')
  # No nodule needs the lowest slice, but it shifts the index of every other
  # slice among the files.
  z_mm = annotations.slice_positions(dicom_files.SCAN_ID)[0]
  dicom_files.write_slice(
    tmp_path / 'ct' / '9.dcm', np.zeros((512, 512), np.int16), z_mm
  )
  more = build_job.records(
    build.build('all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data')
  )
  for nodule_id, record in build_job.records(built).items():
    np.testing.assert_array_equal(more[nodule_id]['image'], record['image'])


def test_phantoms_are_marked_as_simulated(phantoms):
  info = phantoms.info
  assert info.metadata['simulated'] is True
  assert info.description.startswith('SIMULATED')
  assert 'SIMULATED' in build.summary(phantoms)
  assert {name: s.num_examples for name, s in info.splits.items()} == {
    'train': 4,
    'validation': 4,
    'test': 4,
  }


def test_phantoms_are_reproducible_and_distinct(phantoms):
  paper = {
    n.nodule_id: n for n in selection.select(selection.POLICIES['paper'])
  }
  images = []
  for nodule_id, record in build_job.records(phantoms).items():
    nodule = paper[nodule_id]
    patch = patches.place(
      annotations.reader_masks(nodule.scan_id, nodule.annotation_ids), (2, 3)
    )
    np.testing.assert_array_equal(
      record['image'][..., 0],
      phantom_patch.simulate(nodule, patch),
    )
    np.testing.assert_array_equal(record['mask'][..., 0], patch.mask)
    assert record['label'] in (0, 1)
    images.append(record['image'].tobytes())
  assert len(set(images)) == 12


def test_simulation_receives_the_mean_ratings(monkeypatch):
  calls = []
  monkeypatch.setattr(
    phantom_patch,
    'simulate_patch',
    lambda masks, ratings, *, pixel_spacing_mm, rng, **_: calls.append(
      (masks.shape, ratings, pixel_spacing_mm, rng.integers(1 << 30))
    ),
  )
  nodule = dicom_files.nodules()[2]  # malignancy 4, 4, 3, 2
  patch = patches.place(
    annotations.reader_masks(nodule.scan_id, nodule.annotation_ids), (2, 3)
  )
  for _ in range(2):
    phantom_patch.simulate(nodule, patch)
  shape, ratings, spacing, draw = calls[0]
  assert shape == (4, 64, 64)
  assert ratings['malignancy'] == 3.25
  assert set(ratings) == set(annotations.RATINGS)
  assert spacing == 0.820312
  assert calls[1][3] == draw


def test_nodule_without_consensus_is_dropped_and_reported(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    phantom_patch,
    'simulate_patch',
    lambda *args, **kwargs: np.zeros((64, 64), np.int16),
  )
  builder = build.build('phantom', data_dir=tmp_path)
  assert sum(s.num_examples for s in builder.info.splits.values()) == 1422
  (dropped,) = builder.info.metadata['dropped']
  assert dropped in build.summary(builder)
  nodule = next(n for n in selection.clusters() if n.nodule_id == dropped)
  masks = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids).masks
  assert not (3 * masks.sum(axis=0) >= 2 * nodule.num_readers).any()
