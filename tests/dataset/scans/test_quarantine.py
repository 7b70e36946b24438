"""A build omits and reports broken files, and resumes after it was stopped."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import dicom_files
import faulty_dicom
import numpy as np
import pydicom
import pytest

from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.lidc_nodules import staging
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch
from tfds_lidc.scans import files
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader


@pytest.fixture(scope='module')
def faulty(tmp_path_factory):
  return faulty_dicom.write(tmp_path_factory.mktemp('faulty'))


@pytest.fixture(scope='module')
def built(faulty, tmp_path_factory):
  return build.build(
    'all', lidc_dir=faulty.directory, data_dir=tmp_path_factory.mktemp('data')
  )


def _records(builder):
  """[(nodule id, image as bytes)] in the order of the files."""
  return [
    (record['nodule_id'].decode(), record['image'].tobytes())
    for split in builder.info.splits
    for record in builder.as_data_source(split)
  ]


def test_every_intact_nodule_is_built(faulty, built):
  assert {nodule_id for nodule_id, _ in _records(built)} == faulty.whole


def test_quarantine_names_files_and_nodules(faulty, built):
  report = json.loads((built.data_path / 'quarantine.json').read_text())
  by_fault = {loss['fault']: loss for loss in report['losses']}
  assert set(by_fault) == {'truncated', 'missing slice', 'zeros', 'text'}
  for fault, loss in by_fault.items():
    assert loss['path'] == str(faulty.paths[fault])
  lost = [i for loss in report['losses'] for i in loss['nodules']]
  assert sorted(lost) == sorted(faulty.lost)
  with open(built.data_path / 'quarantine.csv', newline='') as f:
    rows = list(csv.DictReader(f))
  assert [row['path'] for row in rows] == [
    loss['path'] for loss in report['losses']
  ]
  assert report['counts']['nodules_quarantined'] == 2


def _assert_counts_add_up(metadata, policy):
  nodules = selection.select(policy)
  for unit, total in (
    ('scans', len({n.series_uid for n in nodules})),
    ('nodules', len(nodules)),
  ):
    parts = {k: v for k, v in metadata.items() if k.startswith(f'{unit}_')}
    assert len(parts) == (3 if unit == 'scans' else 4)
    assert sum(parts.values()) == total, parts
    assert min(parts.values()) >= 0


def test_counts_add_up_to_the_cohort(faulty, built):
  metadata = built.info.metadata
  _assert_counts_add_up(metadata, selection.POLICIES['all'])
  assert metadata['nodules_used'] == len(faulty.whole) == 5
  assert (metadata['scans_used'], metadata['scans_quarantined']) == (2, 0)
  summary = build.summary(built)
  assert 'quarantined: 2 nodules, 0 scans' in summary
  assert 'quarantine.csv' in summary


def test_scan_without_an_intact_nodule_is_quarantined(tmp_path):
  for patient in ('LIDC-IDRI-0003', faulty_dicom.OTHER):
    slices = faulty_dicom.write_patient(tmp_path / 'ct', patient)
    if patient == faulty_dicom.OTHER:
      for nodule in faulty_dicom.nodules_of(patient):
        slices[faulty_dicom.needed(nodule)].unlink()
  builder = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data'
  )
  metadata = builder.info.metadata
  _assert_counts_add_up(metadata, selection.POLICIES['all'])
  assert (metadata['scans_used'], metadata['scans_quarantined']) == (1, 1)
  assert metadata['nodules_quarantined'] == 3


def test_scan_of_truncated_files_is_quarantined_and_not_missing(tmp_path):
  faulty_dicom.write_patient(tmp_path / 'ct', 'LIDC-IDRI-0003')
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  for path in slices.values():
    os.truncate(path, 2000)
  builder = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data'
  )
  metadata = builder.info.metadata
  _assert_counts_add_up(metadata, selection.POLICIES['all'])
  assert (metadata['scans_used'], metadata['scans_quarantined']) == (1, 1)
  report = json.loads((builder.data_path / 'quarantine.json').read_text())
  lost = {loss['path']: loss['nodules'] for loss in report['losses']}
  for nodule in faulty_dicom.nodules_of(faulty_dicom.OTHER):
    assert lost[str(slices[faulty_dicom.needed(nodule)])] == [nodule.nodule_id]


def test_build_without_an_intact_nodule_is_an_error(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  for nodule in faulty_dicom.nodules_of(faulty_dicom.OTHER):
    slices[faulty_dicom.needed(nodule)].unlink()
  with pytest.raises(errors.InputError, match='no nodule is left'):
    build.build('all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data')


def test_strict_build_fails_on_a_broken_file_that_no_nodule_needs(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  slices[0].write_bytes(b'')
  data_dir = tmp_path / 'data'
  with pytest.raises(errors.InputError, match=str(slices[0])):
    build.build('all', lidc_dir=tmp_path / 'ct', data_dir=data_dir, strict=True)
  assert not build.is_built('all', data_dir=data_dir)
  build.build('all', lidc_dir=tmp_path / 'ct', data_dir=data_dir)
  assert build.is_built('all', data_dir=data_dir)


def test_nodule_on_a_blank_image_is_quarantined(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  nodule, *others = faulty_dicom.nodules_of(faulty_dicom.OTHER)
  path = slices[faulty_dicom.needed(nodule)]
  data = path.read_bytes()
  path.write_bytes(data[: -512 * 512 * 2] + bytes(512 * 512 * 2))
  builder = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data'
  )
  assert {i for i, _ in _records(builder)} == {n.nodule_id for n in others}
  report = json.loads((builder.data_path / 'quarantine.json').read_text())
  assert [loss['fault'] for loss in report['losses']] == ['blank']


def test_duplicate_replaces_a_broken_slice(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  for nodule in faulty_dicom.nodules_of(faulty_dicom.OTHER):
    path = slices[faulty_dicom.needed(nodule)]
    path.with_name(f'copy-{path.name}').write_bytes(path.read_bytes())
    # The header is intact; only decoding fails.
    path.write_bytes(
      path.read_bytes().replace(b'MONOCHROME2', b'PALETTE\0\0\0\0')
    )
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated = 7
    dataset.save_as(path)
  builder = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data'
  )
  assert builder.info.metadata['nodules_quarantined'] == 0


def _phantoms_of(num_scans):
  """(ids of the first scans, config of phantoms)."""
  scans = list(dict.fromkeys(n.scan_id for n in selection.clusters()))
  scans = scans[:num_scans]
  return scans, lidc_nodules_dataset_builder.LidcConfig(
    name='few', policy=selection.POLICIES['paper'], simulated=True
  )


def test_stopped_build_reads_no_scan_twice(tmp_path, monkeypatch):
  scans, config = _phantoms_of(12)
  few = tuple(n for n in selection.clusters() if n.scan_id in scans)
  monkeypatch.setattr(selection, 'clusters', lambda: few)
  read, seen = reader.read, []

  def stop_after_four(job):
    if len(seen) == 4:
      raise KeyboardInterrupt
    seen.append(job.nodules[0].scan_id)
    return read(job)

  monkeypatch.setattr(reader, 'read', stop_after_four)
  with pytest.raises(KeyboardInterrupt):
    build.build(config, data_dir=tmp_path / 'data')
  stopped = list(seen)
  assert len(stopped) == 4

  def note_and_read(job):
    seen.append(job.nodules[0].scan_id)
    return read(job)

  monkeypatch.setattr(reader, 'read', note_and_read)
  resumed = build.build(config, data_dir=tmp_path / 'data')
  assert len(seen) == len(set(seen))
  assert seen[:4] == stopped and len(seen) > 6
  # A complete build removes its cache.
  assert not list((tmp_path / 'data').rglob('*.npz'))
  undisturbed = build.build(config, data_dir=tmp_path / 'other')
  assert _records(resumed) == _records(undisturbed)


def test_killed_build_resumes(tmp_path):
  command = [
    sys.executable,
    '-m',
    'tfds_lidc.build',
    '--config=phantom',
    '--workers=1',
    f'--data_dir={tmp_path}',
  ]
  cache = building.cache_dir(tmp_path)
  with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
    deadline = time.monotonic() + 60
    while len(list(cache.rglob('*.npz'))) < 20:
      assert time.monotonic() < deadline
      time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
  kept = {path: os.stat(path).st_mtime_ns for path in cache.rglob('*.npz')}
  assert not build.is_built('phantom', data_dir=tmp_path)
  # The next build removes the staging folder, but not those in use.
  hidden = '**/.*.mtnet_jax-*'
  assert list(tmp_path.glob(hidden))
  builder = building.find('phantom', data_dir=tmp_path)
  with staging.folder(builder) as alive:
    staging.remove_leftovers(builder)
    assert list(tmp_path.glob(hidden)) == [alive]
  policy = selection.POLICIES['paper']
  (scan_dir,) = {path.parent for path in kept}
  read = files.ReadToFile(str(scan_dir))
  nodules = selection.select(policy)
  job = reader.Job(
    tuple(n for n in nodules if n.scan_id == nodules[0].scan_id), policy
  )
  before = len(list(scan_dir.glob('*.npz')))
  read(job)
  assert len(list(scan_dir.glob('*.npz'))) == before
  assert {p: os.stat(p).st_mtime_ns for p in kept} == kept


def test_changed_file_is_read_again(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  (series,) = dicom_files.series_of(tmp_path / 'ct').values()
  policy = selection.POLICIES['all']
  job = reader.Job(
    tuple(faulty_dicom.nodules_of(faulty_dicom.OTHER)), policy, series
  )
  read = files.ReadToFile(str(tmp_path))
  first = read(job)
  assert read(job).file == first.file
  os.utime(slices[0], ns=(1, 1))
  assert read(job).file != first.file


def test_phantoms_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
  scans, config = _phantoms_of(40)
  config.policy = selection.POLICIES['all']
  few = tuple(n for n in selection.clusters() if n.scan_id in scans)
  monkeypatch.setattr(selection, 'clusters', lambda: few)
  built = [
    build.build(config, data_dir=tmp_path / str(workers), workers=workers)
    for workers in (1, 4)
  ]
  by_one, by_four = map(_records, built)
  assert len(by_one) > 80
  assert by_one == by_four
  assert built[0].info.metadata == built[1].info.metadata


def test_ct_does_not_depend_on_the_number_of_workers(
  faulty, built, tmp_path, monkeypatch
):
  monkeypatch.setattr(lidc_nodules_dataset_builder, '_MIN_PARALLEL', 0)
  again = build.build(
    'all', lidc_dir=faulty.directory, data_dir=tmp_path, workers=4
  )
  assert _records(again) == _records(built)
  assert again.info.metadata == built.info.metadata
  for name in quarantine.FILE_NAMES:
    assert (again.data_path / name).read_bytes() == (
      built.data_path / name
    ).read_bytes()


def test_phantoms_have_no_quarantine(tmp_path, monkeypatch):
  monkeypatch.setattr(
    patch,
    'simulate_patch',
    lambda *args, **kwargs: np.zeros((64, 64), np.int16),
  )
  scans, config = _phantoms_of(3)
  few = tuple(n for n in selection.clusters() if n.scan_id in scans)
  monkeypatch.setattr(selection, 'clusters', lambda: few)
  builder = build.build(config, data_dir=tmp_path)
  assert not (builder.data_path / 'quarantine.json').exists()
