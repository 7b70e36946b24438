"""SIMULATED series have the format of real ones but are marked as SIMULATED."""

import dataclasses
import subprocess
import sys

import dicom_files
import faulty_dicom
import numpy as np
import pydicom
import pytest

from tfds_lidc import build
from tfds_lidc import check
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch as phantom_patch
from tfds_lidc.phantom import scanner
from tfds_lidc.phantom import series as phantom_series

PATIENT = faulty_dicom.OTHER


def _run(*args):
  return subprocess.run(
    [sys.executable, '-W', 'error', '-m', 'tfds_lidc.phantom', *map(str, args)],
    text=True,
    capture_output=True,
    check=False,
  )


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('simulated')
  done = _run(f'--write_dicom={directory}', f'--patients={PATIENT}')
  assert done.returncode == 0, done.stderr
  assert 'SIMULATED' in done.stdout
  return directory


def test_identity_and_geometry_are_those_of_the_database(directory):
  (scan,) = (s for s in annotations.scans().values() if s.patient_id == PATIENT)
  series = dicom_files.series_of(directory)[scan.series_uid]
  z_mm = annotations.slice_positions(scan.scan_id)
  np.testing.assert_allclose([s.z_mm for s in series.slices], z_mm, atol=1e-6)
  for s in series.slices[:: len(z_mm) // 4]:
    image = pydicom.dcmread(s.path)
    assert 'SIMULATED' in image.SeriesDescription
    assert 'SIMULATED' in image.ImageComments
    assert image.PatientID == PATIENT
    assert image.StudyInstanceUID == scan.study_uid
    assert float(image.PixelSpacing[0]) == scan.pixel_spacing_mm
    assert float(image.SliceThickness) == scan.slice_thickness_mm
    hu = dicom_files.read_hu(s.path)
    assert hu.shape == (512, 512)
    assert hu[0, 0] == -2000  # outside the field of view
    assert hu[256, 256] > -200  # the mediastinum
    assert hu[256, 150] < -700 or hu[256, 360] < -700  # lung


def test_files_are_reproduced_byte_by_byte(directory, tmp_path):
  again = phantom_series.write_patient(tmp_path, PATIENT)
  for path in again[::40]:
    first = directory / path.relative_to(tmp_path)
    assert first.read_bytes() == path.read_bytes()


def test_check_finds_no_fault_and_reports_simulated(directory):
  report = check.check(directory)
  assert report['faults'] == []
  assert report['scans']['complete'] == report['scans']['simulated'] == 1
  assert report['policies']['all']['found'] == 3
  assert '1 of the scans found are SIMULATED' in check.table(report)


def test_build_from_simulated_series_is_simulated(directory, tmp_path):
  build.build('paper', lidc_dir=directory, data_dir=tmp_path, strict=True)
  built = build.build('paper', data_dir=tmp_path)  # opened again
  assert built.info.metadata['simulated'] is True
  assert 'SIMULATED' in build.summary(built)
  nodules = {
    n.nodule_id: n
    for n in selection.select(selection.POLICIES['paper'])
    if n.patient_id == PATIENT
  }
  records = [r for s in built.info.splits for r in built.as_data_source(s)]
  assert len(records) == len(nodules) > 0
  for record in records:
    # Inside the outlines, the image is that of the config `phantom`.
    nodule = nodules[record['nodule_id'].decode()]
    (patch,) = patches.place_nodule(nodule, selection.POLICIES['paper'])
    marked = patch.votes > 0
    image = phantom_patch.simulate(nodule, patch)
    np.testing.assert_array_equal(record['image'][marked, 0], image[marked])


def _nodule_and_two_patches():
  """(nodule, its patch in the dataset, its patch on the last marked slice)."""
  nodule = next(
    n
    for n in selection.select(selection.POLICIES['paper'])
    if n.patient_id == PATIENT
  )
  (own,) = patches.place_nodule(nodule, selection.POLICIES['paper'])
  *_, last = patches.place_nodule(nodule, selection.ANY_VOTE)
  return nodule, own, last


def _paste_on_slice(image, patch):
  """Returns a (512, 512) slice with the patch at its position, NaN outside."""
  plane = np.full((512, 512), np.nan)
  plane[patch.row - 32 : patch.row + 32, patch.col - 32 : patch.col + 32] = (
    image
  )
  return plane


def test_slices_of_a_nodule_share_the_background():
  nodule, own, last = _nodule_and_two_patches()
  assert own.slice_index != last.slice_index
  # Patches at one position would not need to shift the background.
  assert (own.row, own.col) != (last.row, last.col)
  rng = phantom_patch.generator(nodule.nodule_id).spawn(3)[2]
  noise_sd = scanner.draw(rng).noise_sd
  shared = phantom_patch.simulate(nodule, last, beside=own).astype(float)
  alone = phantom_patch.simulate(nodule, last).astype(float)
  first = _paste_on_slice(phantom_patch.simulate(nodule, own), own)
  # Far from both outlines there is only background.
  near = _paste_on_slice(
    phantom_patch.consensus_distance(own.reader_masks) > -8, own
  ) + _paste_on_slice(last.votes > 0, last)
  for image, is_shared in ((shared, True), (alone, False)):
    difference = (first - _paste_on_slice(image, last))[near == 0]
    assert difference.size > 1000
    # The difference of two images has twice the variance of their noise.
    assert (np.std(difference) < 1.2 * noise_sd * 2**0.5) == is_shared
  assert np.nanstd(first) > 3 * noise_sd


def test_every_slice_has_its_own_noise():
  nodule, own, _ = _nodule_and_two_patches()
  beside = dataclasses.replace(own, slice_index=own.slice_index + 1)
  difference = phantom_patch.simulate(nodule, own).astype(float)
  difference -= phantom_patch.simulate(nodule, beside, beside=own)
  rng = phantom_patch.generator(nodule.nodule_id).spawn(3)[2]
  noise_sd = scanner.draw(rng).noise_sd
  assert np.std(difference) == pytest.approx(noise_sd * 2**0.5, rel=0.1)
  assert abs(np.mean(difference)) < noise_sd / 4


def test_overlapping_patches_do_not_overwrite_marked_pixels():
  votes = np.zeros((64, 64), np.uint8)
  votes[30:34, 30:34] = 1
  hu = np.full((512, 512), -1000, np.int16)
  pasted = [
    (
      phantom_series.patches.Patch(0, row, 100, votes[None], votes, votes > 0),
      np.full((64, 64), value, np.int16),
    )
    for row, value in ((100, 1), (104, 2), (5, 3))
  ]
  phantom_series._paste(hu, pasted)
  assert (hu[98:102, 98:102] == 1).all() and (hu[102:106, 98:102] == 2).all()
  assert hu[80, 100] == 1 and hu[130, 100] == 2 and hu[0, 100] == 3
  assert hu[200, 200] == -1000
  assert (hu == 3).sum() == 37 * 64  # only 37 of its rows are on the slice


def test_unknown_patient_is_a_one_line_error(tmp_path):
  done = _run(f'--write_dicom={tmp_path}', '--patients=LIDC-IDRI-9999')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and 'LIDC-IDRI-9999' in done.stderr
