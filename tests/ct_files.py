"""CT series for tests, with spheres as nodules and secret patient data."""

import types

import dicom_files
import numpy as np

from mtnet_jax.inference import prediction
from mtnet_jax.models import predictor
from mtnet_jax.storage import seen as seen_lib

AIR_HU, NODULE_HU = -900, 50
THRESHOLD_HU = -400
SPACING_MM, SLICE_MM = 0.7, 1.5
SHAPE = (40, 96, 112)  # slices, rows, columns: all different
ORIGIN_MM = (-40.5, -120.25, -300.0)
SERIES_UID = '1.2.826.0.1.3680043.10.99.1'

# Values that must not appear in any output.
SECRETS = {
  'PatientName': 'Secretname^Given',
  'PatientID': 'SECRET-ID-17',
  'PatientBirthDate': '19310203',
  'PatientAddress': 'Secret Street 5',
  'AccessionNumber': 'SECRETACC9',
  'ReferringPhysicianName': 'Secretdoctor',  # highdicom warns of a ^
  'InstitutionName': 'Secret Hospital',
  'StudyDescription': 'secret study',
  'OtherPatientIDs': 'SECRET-OTHER',
  'SeriesDescription': 'SIMULATED secret series',
}


def sphere(shape, centre, radius_mm):
  """Returns the mask of a ball; `centre` is (slice, row, column), as floats."""
  k, row, col = np.ogrid[: shape[0], : shape[1], : shape[2]]
  return ((k - centre[0]) * SLICE_MM) ** 2 + (
    (row - centre[1]) ** 2 + (col - centre[2]) ** 2
  ) * SPACING_MM**2 < radius_mm**2


def volume(*spheres, shape=SHAPE):
  """Returns int16 HU of `shape` with balls (centre, radius_mm) as nodules."""
  # Without noise a patch could be constant, which no scanner produces.
  rng = np.random.default_rng(0)
  hu = rng.integers(AIR_HU - 20, AIR_HU + 20, shape).astype(np.int16)
  for centre, radius_mm in spheres:
    hu[sphere(shape, centre, radius_mm)] = NODULE_HU
  return hu


def write(directory, hu, *, z_mm=None, series_uid=SERIES_UID, **tags):
  """Writes a series whose slices are numbered from the head down.

  Args:
    directory: directory of the files.
    hu: (slices, rows, columns) int16, from the lowest z.
    z_mm: position of each slice; equidistant by default.
    series_uid: SeriesInstanceUID.
    **tags: further attributes of every slice: a value, a function of the slice
      index, or None to leave the attribute out.

  Returns:
    The paths of the files, from the lowest z.
  """
  if z_mm is None:
    z_mm = ORIGIN_MM[2] + SLICE_MM * np.arange(len(hu))
  common = {
    'StudyInstanceUID': '1.2.826.0.1.3680043.10.99.0',
    'FrameOfReferenceUID': '1.2.826.0.1.3680043.10.99.2',
    'ImageOrientationPatient': [1, 0, 0, 0, 1, 0],
    'PixelSpacing': [SPACING_MM] * 2,
    'SliceThickness': SLICE_MM,
    'StudyDate': '20200101',
    'StudyTime': '101010',
    'PatientSex': 'F',
    'StudyID': '1',
    'ImagePositionPatient': lambda k: [*ORIGIN_MM[:2], float(z_mm[k])],
    'SOPInstanceUID': lambda k: f'{series_uid[:50]}.{k + 1}',
    **SECRETS,
    **tags,
  }
  return [
    dicom_files.write_slice(
      directory / f'1-{len(hu) - k:03}.dcm',
      (plane + 1024).astype(np.int16),
      float(z),
      series_uid=series_uid,
      patient_id=SECRETS['PatientID'],
      instance_number=len(hu) - k,
      **{
        name: value(k) if callable(value) else value
        for name, value in common.items()
        if name != 'PatientID'
      },
    )
    for k, (plane, z) in enumerate(zip(hu, z_mm, strict=True))
  ]


class Model:
  """Replaces a trained model; pixels above -400 HU are nodule.

  The coarse mask is the fine one without its lowest row. The probability of
  malignancy is the mask's share of the patch.
  """

  name = 'thresholder'
  simulated = True
  symmetries = False
  fingerprint = 'of a threshold'
  config = types.SimpleNamespace(variant='fake')
  metrics = {}
  seen = seen_lib.Seen(frozenset())

  def __init__(self, spacing_mm=SPACING_MM):
    self.spacing_mm = spacing_mm  # the expected argument of `predict`
    self.batches = []  # sizes of the batches so far

  def predict(self, hu, pixel_spacing_mm):
    outputs = self.outputs(hu, pixel_spacing_mm)
    return prediction.Prediction(**predictor.as_answer(outputs))

  def outputs(self, hu, pixel_spacing_mm):
    assert hu.shape[1:] == (64, 64)
    np.testing.assert_allclose(pixel_spacing_mm, self.spacing_mm)
    self.batches.append(len(hu))
    mask = hu > THRESHOLD_HU
    coarse = mask & np.roll(mask, -1, axis=1)
    return {
      'fine': mask.astype(np.float32),
      'coarse': coarse.astype(np.float32),
      'class': mask.mean(axis=(1, 2)),
      'cam': np.where(mask, 1.0, -0.2).astype(np.float32),
    }
