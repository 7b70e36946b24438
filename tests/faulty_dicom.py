"""A directory with every fault of a real download at once."""

import pathlib
from typing import NamedTuple

import dicom_files
import numpy as np

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

OTHER = 'LIDC-IDRI-0005'  # a patient without any fault


class Faulty(NamedTuple):
  """What is where."""

  directory: pathlib.Path
  paths: dict[str, pathlib.Path]  # fault -> the file or folder
  lost: set[str]  # nodules whose slice cannot be read
  whole: set[str]  # nodules that a build must yield


def nodules_of(patient_id: str) -> list[selection.Nodule]:
  return [
    n
    for n in selection.select(selection.POLICIES['all'])
    if n.patient_id == patient_id
  ]


def write_patient(
  directory: pathlib.Path, patient_id: str
) -> dict[int, pathlib.Path]:
  """Writes every slice of a patient's scan: slice index -> file.

  HU are the column and the rank of the slice, less 1024.
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
  """The slice of a nodule's patch."""
  (patch,) = patches.place_nodule(nodule, selection.POLICIES['all'])
  return patch.slice_index


def extent(nodule: selection.Nodule) -> range:
  """All slices that any reader marked."""
  readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  return range(readers.origin[0], readers.origin[0] + readers.masks.shape[1])


def write(directory: pathlib.Path) -> Faulty:
  """Writes LIDC-IDRI-0003 with a slice lost to each fault, and what else."""
  nodules = nodules_of('LIDC-IDRI-0003')
  slices = write_patient(directory, 'LIDC-IDRI-0003')
  one, two, three, four = nodules
  paths = {}

  # Nodule 1 loses its slice to a truncated file, nodule 2 to a missing one.
  paths['truncated'] = slices[needed(one)]
  paths['truncated'].write_bytes(paths['truncated'].read_bytes()[:-1000])
  paths['missing slice'] = slices[needed(two)].parent
  slices[needed(two)].unlink()
  # Nodule 3 is whole, though its slice is there twice.
  paths['duplicated slice'] = slices[needed(three)].with_name('2-001.dcm')
  paths['duplicated slice'].write_bytes(slices[needed(three)].read_bytes())
  # Files that no nodule needs.
  spare = [k for k in slices if not any(k in extent(n) for n in nodules)]
  paths['zeros'] = slices[spare[0]]
  paths['zeros'].write_bytes(bytes(paths['zeros'].stat().st_size))
  paths['text'] = slices[spare[1]]
  paths['text'].write_text('503 Service Unavailable\n')
  # Other things under a patient's name.
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
  """(slices, rows, columns): how many readers marked each pixel."""
  readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  return readers.masks.sum(axis=0)
