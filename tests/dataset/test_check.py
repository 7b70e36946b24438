"""The command `check` names every fault and counts nodules as a build does."""

import functools
import json
import os
import pathlib

import build_job
import dicom_files
import faulty_dicom
import main_job
import pytest

from tfds_lidc import build
from tfds_lidc import check
from tfds_lidc.lidc_nodules import building
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection


@pytest.fixture(scope='module')
def faulty(tmp_path_factory):
  return faulty_dicom.write(tmp_path_factory.mktemp('faulty'))


_run = functools.partial(build_job.run, command='check')


@pytest.fixture(scope='module')
def checked(faulty, tmp_path_factory):
  """The command's (standard output, JSON report)."""
  scratch = tmp_path_factory.mktemp('check')
  returncode, stdout, stderr = _run(
    f'--lidc_dir={faulty.directory}',
    f'--json={scratch}/report.json',
    f'--data_dir={scratch}/data',
  )
  assert returncode == 0, stderr
  return stdout, json.loads((scratch / 'report.json').read_text())


@pytest.mark.parametrize(
  'kind',
  [
    'truncated',
    'zeros',
    'text',
    'missing slice',
    'duplicated slice',
    'radiograph',
    'second series',
  ],
)
def test_every_fault_is_named(faulty, checked, kind):
  stdout, report = checked
  (fault,) = (f for f in report['faults'] if f['fault'] == kind)
  path = faulty.paths[kind]
  if kind in ('radiograph', 'second series'):
    path = path.parent  # the report names a series by its folder
  assert fault['path'] == str(path)
  assert f'  {kind}: 1\n' in stdout and f'{path} ' in stdout
  affected = {'truncated': '1', 'missing slice': '2'}.get(kind)
  assert fault['nodules'] == (
    [f'LIDC-IDRI-0003_14_{affected}'] if affected else []
  )
  # Two of the broken files hold no nodule and only make a series incomplete.
  others = {f['fault'] for f in report['faults']} - set(faulty.paths)
  assert others == {'incomplete series'}


def test_counts_add_up(faulty, checked):
  stdout, report = checked
  # 140 and 133 slices and one duplicate; 4 are lost, 1 is of a second series.
  assert report['files'] == {
    'total': 140 + 133 + 1 - 1 + 2 + 1,
    'ct_images': 140 + 133 + 1 - 4 + 1,
    'other_images': 1,
    'broken': 3,
  }
  scans = report['scans']
  assert (scans['in_lidc_idri'], scans['found'], scans['complete']) == (
    1018,
    2,
    1,
  )
  assert scans['missing'] == len(scans['missing_patients']) == 1016
  assert report['policies']['all']['found'] == len(faulty.whole)
  paper = {
    n.nodule_id: n for n in selection.select(selection.POLICIES['paper'])
  }
  found = [paper[i] for i in faulty.whole if i in paper]
  assert report['policies']['paper'] == {
    'selected': 1423,
    'found': len(found),
    'benign': sum(n.label == 0 for n in found),
    'malignant': sum(n.label == 1 for n in found),
    'open': 0,
    'patients': 2,
    'scans': 2,
  }
  assert '2 of 1018 scans of LIDC-IDRI, 1 of them complete' in stdout


def test_missing_slice_that_no_record_needs_is_only_named(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  nodules = faulty_dicom.nodules_of(faulty_dicom.OTHER)
  (scan_id,) = {n.scan_id for n in nodules}
  whole = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'whole'
  )
  # The two policies have different levels of consensus.
  needed = {
    patches.place_nodule(n, selection.POLICIES[name])[0].slice_index
    for n in nodules
    for name in ('all', 'paper')
  }
  # A record needs only the slice of the largest mask. Of the other slices of a
  # nodule, the one with the largest marked area is removed.
  nodule = max(nodules, key=lambda n: len(faulty_dicom.extent(n)))
  areas = (faulty_dicom.votes(nodule) > 0).sum(axis=(1, 2))
  area, k = max(
    (area, k)
    for area, k in zip(areas, faulty_dicom.extent(nodule), strict=True)
    if k not in needed
  )
  assert area > 0
  slices[k].unlink()

  report = check.check(tmp_path / 'ct')
  (fault,) = report['faults']
  assert fault['fault'] == 'missing slice'
  z_mm = annotations.slice_positions(scan_id)[k]
  assert f'lacks the slice at z={z_mm} mm' in fault['reason']
  assert nodule.nodule_id in fault['nodules']
  assert report['policies']['all']['found'] == len(nodules)
  assert 'only slices=all needs them' in check.table(report)

  def images(builder):
    return {
      record['nodule_id']: record['image'].tobytes()
      for split in builder.info.splits
      for record in builder.as_data_source(split)
    }

  found = build.build(
    'all', lidc_dir=tmp_path / 'ct', data_dir=tmp_path / 'found'
  )
  assert images(found) == images(whole)
  every_slice = build.build(
    'all',
    policy='slices=all',
    lidc_dir=tmp_path / 'ct',
    data_dir=tmp_path / 'found',
  )
  lost = set(images(whole)) - set(images(every_slice))
  assert lost == {i.encode() for i in fault['nodules']}


def test_build_after_a_check_reads_no_header_again(faulty, tmp_path):
  cache_dir = building.cache_dir(tmp_path)
  check.check(faulty.directory, cache_dir=cache_dir)
  index = check.series_index.load(faulty.directory, cache_dir=cache_dir)
  assert index.num_read == 0


@dicom_files.needs_real_series
def test_real_series_has_no_fault():
  report = check.check(dicom_files.REAL_DIR)
  assert report['faults'] == []
  assert report['scans']['complete'] == 1
  assert report['policies']['all']['found'] == 4


@pytest.mark.parametrize(
  'content, message',
  [(None, 'does not exist'), ({}, 'is empty'), ({'a.dcm': 'x'}, 'no CT')],
)
def test_directory_without_ct_is_a_one_line_error(tmp_path, content, message):
  if content is not None:
    (tmp_path / 'ct').mkdir()
    for name, text in content.items():
      (tmp_path / 'ct' / name).write_text(text)
  returncode, stdout, stderr = _run(
    f'--lidc_dir={tmp_path}/ct', f'--data_dir={tmp_path}/data'
  )
  assert (returncode, stdout) == (2, '')
  assert stderr.startswith('error: ') and stderr.count('\n') == 1
  assert message in stderr and f'{tmp_path}/ct' in stderr


def test_control_characters_in_file_names_are_replaced(checked):
  _, report = checked
  fault = {**report['faults'][0], 'path': '/ct/\x1b[2Jgone\r.dcm'}
  text = check.table({**report, 'faults': [fault]})
  assert '/ct/\N{REPLACEMENT CHARACTER}[2Jgone' in text
  assert all(c.isprintable() or c == '\n' for c in text)


@pytest.mark.parametrize('name', (b'\xff\xfe.dcm', b'L\xe4ufer.dcm'))
@pytest.mark.parametrize('locale', ('C.UTF-8', 'C'))
def test_undecodable_file_name_does_not_stop_the_commands(
  tmp_path, name, locale
):
  """An empty file has that name; the locale is UTF-8 or ASCII."""
  dicom_files.write_series(tmp_path / 'ct')
  pathlib.Path(os.fsdecode(bytes(tmp_path / 'ct') + b'/' + name)).touch()
  env = {'LC_ALL': locale, 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
  for command, flags in (
    ('check', [f'--json={tmp_path}/report.json']),
    ('build', ['--config=all']),
  ):
    done = main_job.run(
      main_job.module(
        f'tfds_lidc.{command}',
        f'--lidc_dir={tmp_path}/ct',
        f'--data_dir={tmp_path}/data',
        '--workers=1',
        *flags,
      ),
      **env,
    )
    assert done.returncode == 0, done.stderr[-2000:]
  report = json.loads((tmp_path / 'report.json').read_text())
  assert any('empty' in json.dumps(fault) for fault in report['faults'])
  (table,) = tmp_path.glob('data/**/quarantine.csv')
  assert '.dcm' in table.read_text(encoding='utf-8')
