"""A directory of DICOM files with every fault that downloads have."""

import pathlib
from typing import NamedTuple

import dicom_files
import numpy as np

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

OTHER = 'LIDC-IDRI-0005'  # a patient without any fault


class Faulty(NamedTuple):
  """A directory with faults.

  Attributes:
    directory: the directory.
    paths: fault -> file or folder that has it.
    lost: ids of nodules whose slice cannot be read.
    whole: ids of nodules that a build must contain.
  """

  directory: pathlib.Path
  paths: dict[str, pathlib.Path]
  lost: set[str]
  whole: set[str]


def nodules_of(patient_id: str) -> list[selection.Nodule]:
  return [
    n
    for n in selection.select(selection.POLICIES['all'])
    if n.patient_id == patient_id
  ]


def write_patient(
  directory: pathlib.Path, patient_id: str
) -> dict[int, pathlib.Path]:
  """Writes all slices of a patient's scan; returns slice index -> path.

  HU are column + slice index - 1024.
  """
  (scan,) = (
    s for s in annotations.scans().values() if s.patient_id == patient_id
  )
  ramp = np.arange(512, dtype=np.int16) + np.zeros((512, 1), np.int16)
  return {
    k: dicom_files.write_slice(
      directory / patient_id / f'1-{k:03}.dcm',
      ramp + k,
      float(z_mm),
      scan.series_uid,
      patient_id=patient_id,
      instance_number=k + 1,
    )
    for k, z_mm in enumerate(annotations.slice_positions(scan.scan_id))
  }


def needed(nodule: selection.Nodule) -> int:
  """Returns the slice index of a nodule's patch."""
  (patch,) = patches.place_nodule(nodule, selection.POLICIES['all'])
  return patch.slice_index


def extent(nodule: selection.Nodule) -> range:
  """Returns the slice indices from the first to the last marked slice."""
  readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  return range(readers.origin[0], readers.origin[0] + readers.masks.shape[1])


def write(directory: pathlib.Path) -> Faulty:
  """Writes LIDC-IDRI-0003 with faults, and `OTHER` without any."""
  nodules = nodules_of('LIDC-IDRI-0003')
  slices = write_patient(directory, 'LIDC-IDRI-0003')
  one, two, three, four = nodules
  paths = {}

  # The slice of nodule 1 is truncated, that of nodule 2 is missing.
  paths['truncated'] = slices[needed(one)]
  paths['truncated'].write_bytes(paths['truncated'].read_bytes()[:-1000])
  paths['missing slice'] = slices[needed(two)].parent
  slices[needed(two)].unlink()
  # The slice of nodule 3 is duplicated, which does not affect the nodule.
  paths['duplicated slice'] = slices[needed(three)].with_name('2-001.dcm')
  paths['duplicated slice'].write_bytes(slices[needed(three)].read_bytes())
  # Files that no nodule needs.
  spare = [k for k in slices if not any(k in extent(n) for n in nodules)]
  paths['zeros'] = slices[spare[0]]
  paths['zeros'].write_bytes(bytes(paths['zeros'].stat().st_size))
  paths['text'] = slices[spare[1]]
  paths['text'].write_text('503 Service Unavailable\n')
  # Images of the patient that do not belong to the series.
  pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
  paths['radiograph'] = dicom_files.write_slice(
    directory / 'LIDC-IDRI-0003' / 'xray' / '1-001.dcm',
    pixels,
    series_uid='1.2.3',
    modality='DX',
  )
  paths['second series'] = dicom_files.write_slice(
    directory / 'LIDC-IDRI-0003' / 'second' / '1-001.dcm',
    pixels,
    series_uid='1.2.4',
  )
  (directory / 'LICENSE').write_text('CC BY 3.0')
  write_patient(directory, OTHER)
  whole = {three.nodule_id, four.nodule_id}
  whole |= {n.nodule_id for n in nodules_of(OTHER)}
  return Faulty(directory, paths, {one.nodule_id, two.nodule_id}, whole)


def votes(nodule: selection.Nodule) -> np.ndarray:
  """Returns how many readers marked each pixel, (slices, rows, columns)."""
  readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  return readers.masks.sum(axis=0)
