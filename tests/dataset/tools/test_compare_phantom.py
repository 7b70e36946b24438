"""The comparison of real and SIMULATED patches."""

import dataclasses
import re
import sys

import dicom_files
import numpy as np
import pytest

from tfds_lidc import errors
from tfds_lidc.ct import index as series_index
from tfds_lidc.nodules import selection
from tfds_lidc.tools import compare_phantom
from tfds_lidc.tools import phantom_figure


def test_directory_without_nodules_is_an_error(tmp_path):
  dicom_files.write_slice(
    tmp_path / '1.dcm', np.zeros((8, 8), np.int16), series_uid='1.2.3'
  )
  with pytest.raises(errors.InputError, match=f'{tmp_path} has no nodule'):
    compare_phantom.real_and_phantom(tmp_path)


def test_simulated_series_is_refused_as_real(tmp_path, monkeypatch):
  dicom_files.write_slice(tmp_path / '1.dcm', np.zeros((8, 8), np.int16))
  index = series_index.load(tmp_path)
  (uid,) = index.series
  series = dataclasses.replace(index.series[uid], simulated=True)
  index = dataclasses.replace(index, series={uid: series})
  monkeypatch.setattr(series_index, 'load', lambda _: index)
  with pytest.raises(errors.InputError, match='SIMULATED'):
    compare_phantom.real_and_phantom(tmp_path)


def test_table_has_medians_of_measurable_nodules():
  images = np.full((3, 64, 64), -900.0)
  votes = np.zeros((3, 64, 64), int)
  for image, marks, size, hu in zip(
    images, votes, (10, 10, 3), (20, 40, 900), strict=True
  ):
    marks[20 : 20 + size, 20 : 20 + size] = 1
    image[marks > 0] = hu
  template = selection.clusters()[0]
  nodule = dataclasses.replace(
    template, annotation_ids=(1,), calcification=(6,), texture=(5,)
  )
  sample = compare_phantom.sample(images, votes, [nodule] * 3)
  lines = compare_phantom.table({'these': sample}).splitlines()
  assert lines[0] == '| HU | these |'
  # The third nodule is too small for a core; the others have 20 and 40 HU.
  assert '| solid: core, mean | 30 (21 to 39; 2) |' in lines
  assert '| solid: ring minus lung | 0 (0 to 0; 2) |' in lines
  assert '| ground glass: core, mean | - |' in lines
  assert lines[2].endswith('| -900 / -900 / -900 / -900 / -900 |')


@dicom_files.needs_real_series
def test_command_draws_a_figure_and_prints_a_table(
  tmp_path, monkeypatch, capsys
):
  out = tmp_path / 'figure.png'
  monkeypatch.setattr(
    sys,
    'argv',
    ['compare', f'--lidc_dir={dicom_files.REAL_DIR}', f'--out={out}'],
  )
  compare_phantom.main()
  assert out.read_bytes()[:4] == b'\x89PNG' and out.stat().st_size < 300_000
  lines = capsys.readouterr().out.splitlines()
  assert re.match(
    r'\| HU \| real CT, \d nodules \| the same, SIMULATED \|', lines[0]
  )
  # All nodules are of one patient.
  assert lines[-1].startswith('Too few patients')
  nodules, real, simulated = compare_phantom.real_and_phantom(
    dicom_files.REAL_DIR
  )
  figure = phantom_figure.draw(nodules, real, simulated)
  labels = [axis.get_ylabel() for axis in figure.axes]
  assert 'SIMULATED' in labels and "readers' outlines" in labels
  # The figure may be published, so it shows phantoms and no pixel of CT.
  drawn = [image.get_array() for axis in figure.axes for image in axis.images]
  assert 0 < len(drawn) <= phantom_figure.NUM_DRAWN
  for image in drawn:
    assert any((image == other).all() for other in simulated.images)
    assert not any((image == other).all() for other in real.images)
  monkeypatch.setattr(
    sys, 'argv', [*sys.argv[:2], f'--out={tmp_path}/no/such.png']
  )
  with pytest.raises(errors.InputError, match='--out'):
    compare_phantom.main()
