"""Finds missing, duplicated and foreign images in the index of a download."""

from collections.abc import Iterator
import os

from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import series as dicom_series
from tfds_lidc.nodules import annotations
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader


def missing(scan_id: int, series: dicom_series.Series) -> list[float]:
  """Returns the z in mm of the slices of a scan that are not on this disk."""
  return [
    float(z_mm)
    for z_mm in annotations.slice_positions(scan_id)
    if series.path_at(z_mm) is None
  ]


def missing_elsewhere(
  scan_id: int,
  series: dicom_series.Series,
  index: series_index.SeriesIndex,
  losses: list[quarantine.Loss],
) -> Iterator[quarantine.Loss]:
  """Yields one fault for all slices that are missing outside of nodules."""
  named = [
    f.z_mm
    for f in index.faults
    if f.series_uid == series.uid and f.z_mm is not None
  ]
  inside = {loss.reason for loss in losses}
  outside = [
    z_mm
    for z_mm in missing(scan_id, series)
    if all(abs(z_mm - at) > dicom_series.Z_TOLERANCE_MM for at in named)
    and not any(
      reader.missing_slice_reason(series, z_mm) in reason for reason in inside
    )
  ]
  if outside:
    yield quarantine.Loss(
      series.folder,
      'incomplete series',
      f'lacks {len(outside)} slices of series {series.uid} outside of '
      f'nodules, from z={min(outside)} to z={max(outside)} mm',
    )


def duplicates(series: dicom_series.Series) -> Iterator[quarantine.Loss]:
  """Yields images at the position of another, which is used instead."""
  by_path = {s.path: s for s in series.slices}
  done: set[str] = set()
  for s in series.slices:
    if s.path in done:
      continue
    first, *others = series.paths_at(s.z_mm)
    done.update((first, *others))
    for path in others:
      copy = by_path[path].image_id == by_path[first].image_id
      yield quarantine.Loss(
        path,
        'duplicated slice',
        f'is {"a copy of" if copy else "another image at the position of"} '
        f'{first} (z={s.z_mm} mm), which is used',
      )


def other_series(index: series_index.SeriesIndex) -> Iterator[quarantine.Loss]:
  """Yields series that are no scans of LIDC-IDRI."""
  patients = {scan.patient_id for scan in annotations.scans().values()}
  for (modality, patient, uid), paths in sorted(index.others.items()):
    kind = 'radiograph' if modality in ('CR', 'DX') else f'{modality} series'
    yield quarantine.Loss(
      os.path.dirname(paths[0]),
      kind,
      f'has {len(paths)} {modality} images of {patient or "no patient"} '
      f'(series {uid}), which are not used',
    )
  for uid, series in sorted(index.series.items()):
    if uid in annotations.scans():
      continue
    ours = series.patient_id in patients
    yield quarantine.Loss(
      series.folder,
      'second series' if ours else 'foreign series',
      f'has {len(series.slices)} CT images of '
      f'{series.patient_id or "no patient"} in series {uid}, which no reader '
      'outlined',
    )
