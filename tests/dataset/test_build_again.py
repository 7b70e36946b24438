"""Builds that are there, that fail, or that wait for one another."""

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


def test_built_already_is_left_alone(built):
  before = os.stat(built.data_path / 'dataset_info.json').st_mtime_ns
  returncode, stdout, stderr = build_job.run(
    '--config=all', f'--data_dir={built.data_path.parents[2]}'
  )
  assert returncode == 0, stderr
  assert 'already built' in stdout and '4 records' in stdout
  assert os.stat(built.data_path / 'dataset_info.json').st_mtime_ns == before


def test_another_folder_than_it_was_built_from_is_named(
  built, synthetic_ct, tmp_path, monkeypatch, capsys
):
  def says(*flags):
    data_dir = f'--data_dir={built.data_path.parents[2]}'
    monkeypatch.setattr(
      sys, 'argv', ['build', '--config=all', data_dir, *map(str, flags)]
    )
    build.main()
    return capsys.readouterr().out.splitlines()[0]

  other, same = tmp_path / 'other', tmp_path / 'same'
  same.symlink_to(synthetic_ct)
  usual = 'already built; --overwrite builds it again'
  assert says() == usual
  assert says(f'--lidc_dir={synthetic_ct}') == usual
  assert says(f'--lidc_dir={same}/.') == usual
  for flag in ('lidc_dir', 'luna_dir'):
    assert says(f'--{flag}={other}') == (
      f'already built, from another folder ({synthetic_ct}); --overwrite reads'
      f' {other}'
    )
  # What a dataset's folder holds may go to others, whom the path is no use to.
  for path in built.data_path.iterdir():
    assert os.fsencode(synthetic_ct) not in path.read_bytes(), path
  # Nor is anything said of a build whose source is not known.
  source = building._source_file(built)
  text = source.read_text()
  source.unlink()
  assert says(f'--lidc_dir={other}') == usual
  source.write_text(text)


def test_failed_build_leaves_the_old_one(tmp_path, synthetic_ct):
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
  # Centre: row - column of the raw values, which are 1024 more than the HU.
  assert image[32, 32, 0] == patch.row - patch.col + 1024


@pytest.fixture
def faulty_ct(request, tmp_path, synthetic_ct):
  """A CT directory with the fault that the parameter names."""
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
  'faulty_ct, says',
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
def test_faulty_ct_ends_in_one_line(tmp_path, faulty_ct, says):
  returncode, stdout, stderr = build_job.run(
    '--config=all',
    f'--lidc_dir={faulty_ct}',
    f'--data_dir={tmp_path}/data',
    '--strict',
  )
  assert returncode == 2
  assert not stdout
  assert stderr.startswith('error: ') and stderr.count('\n') == 1, stderr
  for words in says:
    assert words in stderr
  assert not list(tmp_path.glob('data/**/dataset_info.json'))
  assert not list(tmp_path.glob('data/**/.*.mtnet_jax-*'))


def test_faulty_arguments_end_in_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  for args, says in (
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
    assert says in stderr


def test_a_second_build_waits_and_finds_the_first_s(
  synthetic_ct, tmp_path, monkeypatch
):
  begun, go_on = threading.Event(), threading.Event()
  whole, publish = [], staging.publish

  def slowly(*args):
    begun.set()
    assert go_on.wait(60)
    whole.append(publish(*args))

  monkeypatch.setattr(staging, 'publish', slowly)

  def run():
    return build.build('all', lidc_dir=synthetic_ct, data_dir=tmp_path)

  with futures.ThreadPoolExecutor() as pool:
    first = pool.submit(run)
    assert begun.wait(60)
    second = pool.submit(run)
    with pytest.raises(futures.TimeoutError):
      second.result(timeout=1)
    go_on.set()
    builders = [first.result(60), second.result(60)]
  assert len(whole) == 1
  first, second = map(build_job.records, builders)
  assert first.keys() == second.keys() and len(first) == 4
