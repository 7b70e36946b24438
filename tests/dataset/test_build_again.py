"""Builds that already exist, that fail, or that wait for another build."""

from concurrent import futures
import os
import shutil
import sys
import threading

import build_job
import dicom_files
import numpy as np
import pydicom
import pytest

from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building
from tfds_lidc.lidc_nodules import staging
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches


def test_existing_build_is_left_unchanged(built):
  before = os.stat(built.data_path / 'dataset_info.json').st_mtime_ns
  returncode, stdout, stderr = build_job.run(
    '--config=all', f'--data_dir={built.data_path.parents[2]}'
  )
  assert returncode == 0, stderr
  assert 'already built' in stdout and '4 records' in stdout
  assert os.stat(built.data_path / 'dataset_info.json').st_mtime_ns == before


def test_lidc_dir_other_than_that_of_the_build_is_reported(
  built, synthetic_ct, tmp_path, monkeypatch, capsys
):
  def first_line(*flags):
    data_dir = f'--data_dir={built.data_path.parents[2]}'
    monkeypatch.setattr(
      sys, 'argv', ['build', '--config=all', data_dir, *map(str, flags)]
    )
    build.main()
    return capsys.readouterr().out.splitlines()[0]

  other, same = tmp_path / 'other', tmp_path / 'same'
  same.symlink_to(synthetic_ct)
  usual = 'already built; --overwrite builds it again'
  assert first_line() == usual
  assert first_line(f'--lidc_dir={synthetic_ct}') == usual
  assert first_line(f'--lidc_dir={same}/.') == usual
  for flag in ('lidc_dir', 'luna_dir'):
    assert first_line(f'--{flag}={other}') == (
      f'already built, from another folder ({synthetic_ct}); --overwrite reads'
      f' {other}'
    )
  # A dataset's folder may be shared, so it must not hold the path of the CT.
  for path in built.data_path.iterdir():
    assert os.fsencode(synthetic_ct) not in path.read_bytes(), path
  # Nothing is reported for a build whose source is unknown.
  source = building._source_file(built)
  text = source.read_text()
  source.unlink()
  assert first_line(f'--lidc_dir={other}') == usual
  source.write_text(text)


def test_failed_build_keeps_the_old_dataset(tmp_path, synthetic_ct):
  shutil.copytree(synthetic_ct, tmp_path / 'ct')
  first = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data'
  )
  before = build_job.records(first)
  broken = sorted((tmp_path / 'ct').iterdir())[-1]
  broken.write_bytes(broken.read_bytes()[:-100])
  with pytest.raises(errors.InputError, match=str(broken)):
    build.build(
      'all',
      lidc_dir=tmp_path / 'ct',
      data_dir=tmp_path / 'data',
      overwrite=True,
      strict=True,
    )
  assert set(
    build_job.records(build.build('all', data_dir=tmp_path / 'data'))
  ) == set(before)
  assert os.listdir(tmp_path / 'data') == ['lidc_nodules']


def test_overwrite_builds_again(tmp_path, synthetic_ct):
  shutil.copytree(synthetic_ct, tmp_path / 'ct')
  build.build('all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data')
  for path in (tmp_path / 'ct').iterdir():
    dataset = pydicom.dcmread(path)
    dataset.RescaleIntercept = 0
    dataset.save_as(path)
  again = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'data', overwrite=True
  )
  patch = patches.place(
    annotations.reader_masks(14, dicom_files.nodules()[0].annotation_ids),
    (1, 2),
  )
  image = build_job.records(again)[dicom_files.nodules()[0].nodule_id]['image']
  # With an intercept of 0 the HU are the raw values, row - column + 1024.
  assert image[32, 32, 0] == patch.row - patch.col + 1024


@pytest.fixture
def faulty_ct(request, tmp_path, synthetic_ct):
  """A CT directory with the fault named by the parameter."""
  directory = tmp_path / 'ct'
  if request.param == 'missing':
    return directory
  directory.mkdir()
  if request.param == 'no lidc':
    dicom_files.write_slice(
      directory / '1.dcm', np.zeros((4, 4), np.int16), series_uid='1.2.3'
    )
  elif request.param != 'empty':
    shutil.copytree(synthetic_ct, directory, dirs_exist_ok=True)
    victim = sorted(directory.iterdir())[0]
    if request.param == 'no slice':
      victim.unlink()
    elif request.param == 'no header':
      victim.write_bytes(b'')
    elif request.param == 'no pixels':
      victim.write_bytes(victim.read_bytes()[:-1000])
  return directory


@pytest.mark.parametrize(
  'faulty_ct, words',
  [
    ('missing', ['does not exist', '/ct']),
    ('empty', ['is empty', '/ct']),
    ('no lidc', ['none of the 1 CT series', '0 of them', 'phantom']),
    ('no slice', ['LIDC-IDRI-0003_14_', 'z=', dicom_files.SERIES_UID]),
    ('no header', ['1-001.dcm']),
    ('no pixels', ['1-001.dcm']),
  ],
  indirect=['faulty_ct'],
)
def test_faulty_ct_is_a_one_line_error(tmp_path, faulty_ct, words):
  returncode, stdout, stderr = build_job.run(
    '--config=all',
    f'--lidc_dir={faulty_ct}',
    f'--data_dir={tmp_path}/data',
    '--strict',
  )
  assert returncode == 2
  assert not stdout
  assert stderr.startswith('error: ') and stderr.count('\n') == 1, stderr
  for word in words:
    assert word in stderr
  assert not list(tmp_path.glob('data/**/dataset_info.json'))
  assert not list(tmp_path.glob('data/**/.*.mtnet_jax-*'))


def test_faulty_arguments_are_a_one_line_error(tmp_path):
  (tmp_path / 'file').write_text('')
  for args, message in (
    (['--config=papr', f'--data_dir={tmp_path}'], 'paper, all, phantom'),
    (['--config=paper', f'--data_dir={tmp_path}'], '--lidc_dir'),
    (['--config=phantom', f'--data_dir={tmp_path}/file'], 'cannot write'),
    (['--config=phantom', '--data_dir=gs://bucket/x'], 'gs://bucket/x'),
    (
      ['--config=phantom', '--policy=readers=9', f'--data_dir={tmp_path}'],
      'selects no nodule',
    ),
  ):
    returncode, _, stderr = build_job.run(*args)
    assert returncode == 2
    assert stderr.startswith('error: ') and stderr.count('\n') == 1, stderr
    assert message in stderr


def test_second_build_waits_and_returns_the_dataset_of_the_first(
  synthetic_ct, tmp_path, monkeypatch
):
  started, may_continue = threading.Event(), threading.Event()
  published, publish = [], staging.publish

  def publish_slowly(*args):
    started.set()
    assert may_continue.wait(60)
    published.append(publish(*args))

  monkeypatch.setattr(staging, 'publish', publish_slowly)

  def run():
    return build.build('all', lidc_dir=synthetic_ct, data_dir=tmp_path)

  with futures.ThreadPoolExecutor() as pool:
    first = pool.submit(run)
    assert started.wait(60)
    second = pool.submit(run)
    with pytest.raises(futures.TimeoutError):
      second.result(timeout=1)
    may_continue.set()
    builders = [first.result(60), second.result(60)]
  assert len(published) == 1
  first, second = map(build_job.records, builders)
  assert first.keys() == second.keys() and len(first) == 4
