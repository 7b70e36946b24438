"""Tests that real_ct.ipynb shows what `predict` writes."""

import io
import re
import types

import dicom_files
import matplotlib.image
import notebook_files
import numpy as np
import predict_job
import pytest
import seg_frames

from mtnet_jax import predict
from mtnet_jax.ct import points as points_lib
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.storage import files
from mtnet_jax.storage import shipped
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import selection

_PATH = notebook_files.FOLDER / 'real_ct.ipynb'


def _cell(word, monkeypatch, folder, **names):
  """Runs the cell that contains a word, and returns its names."""
  notebook = notebook_files.read(_PATH)
  _, found = notebook_files.run_cell(
    notebook, word, monkeypatch, folder, **names
  )
  return found


def _count(png, *, low=(), high=()):
  """The number of pixels whose channels `low` are low and `high` are high."""
  pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
  return np.sum(
    (pixels[..., list(low)] < 0.2).all(-1)
    & (pixels[..., list(high)] > 0.7).all(-1)
  )


def _check(text, images, out, ct, *, patient_id):
  """Compares the notebook's output with files, annotations and metrics.

  Args:
    text: printed output of the notebook.
    images: PNG images of the notebook, in their order.
    out: the output folder of `predict`.
    ct: the folder of the CT.
    patient_id: as in LIDC-IDRI.

  Returns:
    The records of predictions.json.
  """
  (scan,) = (
    scan
    for scan in annotations.scans().values()
    if scan.patient_id == patient_id
  )
  index = predict_job.read(out)
  records = index['points']
  assert {record['id'] for record in records} == {
    nodule.nodule_id
    for nodule in selection.select(selection.POLICIES['all'])
    if nodule.patient_id == patient_id
  }
  # The pictures of all nodules come first, then three planes and the body of
  # each nodule, and last the calibration.
  count = len(records)
  assert len(images) == 2 * count + 1
  for record, png in zip(records, images[:count], strict=True):
    assert png == (out / record['figure']).read_bytes()
  for png in images[count:-1]:
    # Outlines and bodies are #00D5FF, which is partly transparent.
    assert _count(png, low=[0], high=[1, 2]) > 100

  # pydicom gives the voxels of each segment, and so their volume.
  (folder,) = {path.parent for path in ct.rglob('*.dcm')}
  masks = seg_frames.place(
    out / 'segmentation.dcm', folder, tuple(index['slices_rows_columns'])
  )
  step_mm = np.diff(annotations.slice_positions(scan.scan_id))
  np.testing.assert_allclose(step_mm, step_mm[0])
  voxel_mm3 = scan.pixel_spacing_mm**2 * step_mm[0]
  for record in records:
    mask = masks[record['segment_number']]
    mask[record['mask']['unmeasured_slices']] = False
    volume_mm3 = record['mask']['volume_mm3']
    assert (
      f'{record["id"]}: {mask.sum()} voxels are'
      f' {mask.sum() * voxel_mm3:.1f} mm³; predictions.json: {volume_mm3}\n'
    ) in text
    if volume_mm3 is not None:
      assert volume_mm3 == pytest.approx(mask.sum() * voxel_mm3, rel=1e-4)
    assert all(f'\n  {note}\n' in text for note in record['notes'])

  # The malignancy is that of the file, with its tenth of the calibration curve.
  metrics = files.read_json(shipped.folder_of('lidc-small') / 'metrics.json')
  for record in records:
    value = record['malignancy_probability']
    (row,) = (
      row
      for row in metrics['calibration']['curve']
      if int(row['mean_probability'] * 10) == int(value * 10)
    )
    suspected = round(row['nodules'] * row['share_malignant'])
    tenth = int(value * 10)
    assert (
      f'{record["id"]}: {value:.3f}. Of {row["nodules"]} test nodules from'
      f' 0.{tenth} to {(tenth + 1) / 10} the readers suspect {suspected}.\n'
    ) in text
  assert 'A temperature of 0.853 takes' in text
  calls = {record['malignancy_probability'] >= 0.5 for record in records}
  assert (_count(images[-1], low=[1, 2], high=[0]) > 100) == (True in calls)
  assert (_count(images[-1], low=[0, 1], high=[2]) > 100) == (False in calls)

  # The notebook prints where all files are.
  for name in ('predictions.json', *index['files']):
    assert f'{out / name}\n' in text and (out / name).is_file()
  return records


def test_it_runs_on_a_simulated_ct(tmp_path, monkeypatch):
  """It uses a smaller scan than the notebook, outside of a clone."""
  monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # no network
  home, folder = tmp_path / 'home', tmp_path / 'work'
  home.mkdir()
  folder.mkdir()
  text, images = notebook_files.run(
    _PATH,
    home,
    monkeypatch,
    folder=folder,
    replace=[('LIDC-IDRI-0220', 'LIDC-IDRI-0957')],
  )
  out = folder / 'runs' / 'real_ct'
  records = _check(
    text, images, out, out / 'simulated_ct', patient_id='LIDC-IDRI-0957'
  )
  assert len(records) == 2
  assert 'SIMULATED CT: 65 slices of 512 x 512 pixels' in text
  assert 'it does not hold for SIMULATED CT' in text
  # The 65 slices and the Segmentation are in the folder of the results.
  assert [path.name for path in folder.iterdir()] == ['runs']
  assert len(list(tmp_path.rglob('*.dcm'))) == 66


@pytest.mark.slow
@dicom_files.needs_real_series
def test_it_runs_on_a_real_ct(tmp_path, monkeypatch):
  """It runs in its own folder, and the other folders are below home."""
  (tmp_path / 'lidc').symlink_to(dicom_files.REAL_DIR)
  before = set(notebook_files.FOLDER.rglob('*'))
  text, images = notebook_files.run(
    _PATH, tmp_path, monkeypatch, CT='~/lidc', OUT='~/out'
  )
  records = _check(
    text,
    images,
    tmp_path / 'out',
    dicom_files.REAL_DIR,
    patient_id='LIDC-IDRI-0003',
  )
  assert len(records) == 4
  # Two of the masks continue along a vessel and have no volume.
  assert [x['mask']['volume_mm3'] is None for x in records].count(True) == 2
  assert '\nCT: 140 slices of 512 x 512 pixels' in text
  assert 'SIMULATED' not in text
  assert not list((tmp_path / 'out').rglob('00*.dcm'))
  assert set(notebook_files.FOLDER.rglob('*')) == before


def test_points_may_be_a_file_or_text(tmp_path, monkeypatch, capsys):
  """The examples in the settings cell are valid points files."""
  settings = notebook_files.cell_of(
    notebook_files.read(_PATH), 'parameters'
  ).source
  examples = [
    text.replace('\\n', '\n') for text in re.findall(r"'(\S+\\n\S+)'", settings)
  ]
  assert len(examples) == 2
  called = []

  def main(flags):
    called.append(flags)
    files.write_json(tmp_path / 'out' / 'predictions.json', {})
    return 1

  monkeypatch.setattr(predict, 'main', main)
  names = {'MODEL': 'lidc-small', 'ct': 'ct', 'out': tmp_path / 'out'}
  common = ['--checkpoint=lidc-small', '--dicom=ct', f'--out={names["out"]}']
  text_file = f'--points={names["out"]}/points.csv'
  (tmp_path / 'out').mkdir()
  for points, flag in (
    ('', '--annotated'),
    ('~/own.csv', '--points=~/own.csv'),
    *((text, text_file) for text in examples),
  ):
    _cell('predict.main', monkeypatch, tmp_path, POINTS=points, **names)
    assert called.pop() == [*common, flag]
    assert 'could not be done' in capsys.readouterr().out
    if flag == text_file:
      read = points_lib.read(names['out'] / 'points.csv')
      assert read.in_mm == points.startswith('x,y,z')
      assert len(read.points) == 1 and not read.faults


def test_a_model_without_calibration_says_so(tmp_path, monkeypatch, capsys):
  record = {'id': 'a', 'malignancy_probability': 0.25}
  for metrics in ({}, None):
    model = types.SimpleNamespace(name='mine', metrics=metrics)
    _cell(
      'def compare',
      monkeypatch,
      tmp_path,
      model=model,
      index={'points': [record]},
    )
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
      'a: 0.250',
      'mine is not calibrated: its probabilities only rank nodules.',
    ]


def test_a_tenth_without_test_nodules_counts_none(
  tmp_path, monkeypatch, capsys
):
  names = _cell(
    'def compare',
    monkeypatch,
    tmp_path,
    model=types.SimpleNamespace(name='', metrics=None),
    index={'points': []},
    np=np,
  )
  capsys.readouterr()
  curve = [{'mean_probability': 0.42, 'share_malignant': 0.5, 'nodules': 6}]
  for value, expected in (
    (0.32, '0 test nodules from 0.3 to 0.4 the readers suspect 0.'),
    (0.48, '6 test nodules from 0.4 to 0.5 the readers suspect 3.'),
  ):
    names['compare']({'id': 'a', 'malignancy_probability': value}, curve)
    assert capsys.readouterr().out == f'a: {value:.3f}. Of {expected}\n'


def test_a_damaged_slice_is_blank(tmp_path, monkeypatch):
  def patch(voxel):
    if voxel[0] == 1:
      raise ct_volume.SliceError('damaged')
    return np.full((64, 64), 7)

  volume = types.SimpleNamespace(
    patch=patch, pixel_spacing_mm=0.7, slice_spacing_mm=2.5
  )
  names = _cell(
    'def draw(', monkeypatch, tmp_path, volume=volume, out=tmp_path, np=np
  )
  assert names['patch'](0, 5, 5)[0, 0] == 7
  blank = names['patch'](1, 5, 5)
  assert blank.shape == (64, 64) and np.isnan(blank).all()


def test_its_model_comes_with_the_package():
  settings = notebook_files.cell_of(
    notebook_files.read(_PATH), 'parameters'
  ).source
  (name,) = re.findall(r"^MODEL = '(.*)'$", settings, re.MULTILINE)
  assert name in shipped.names()


def test_a_slice_without_an_outline_is_not_in_the_volume(
  tmp_path, monkeypatch, capsys
):
  thickness_mm = np.array([1.0, 2.0, 3.0, 4.0])
  volume = types.SimpleNamespace(
    shape=(4, 8, 8),
    pixel_spacing_mm=0.5,
    thickness_mm=lambda slices: thickness_mm[list(slices)],
  )
  names = _cell('def measure', monkeypatch, tmp_path, volume=volume)
  mask = np.zeros(volume.shape, bool)
  mask[1, :2], mask[2], mask[3, 0, :3] = True, True, True
  record = {
    'id': 'a',
    'mask': {'volume_mm3': 11.0, 'unmeasured_slices': [2]},
    'notes': ['a leak'],
  }
  names['measure'](record, mask)
  # 16 pixels are 2 mm thick and 3 are 4 mm thick, each 0.25 mm2 in size.
  assert capsys.readouterr().out == (
    'a: 19 voxels are 11.0 mm³; predictions.json: 11.0\n  a leak\n'
  )
