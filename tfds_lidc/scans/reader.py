"""Reads the nodules of one scan: places patches and reads their slices.

Faults do not raise here: a nodule that cannot be read becomes a loss, and the
others are read.
"""

import collections
from collections.abc import Iterable
import dataclasses
from typing import NamedTuple

import numpy as np

from tfds_lidc.ct import header
from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import pixels
from tfds_lidc.ct import series as dicom_series
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch as phantom_patch
from tfds_lidc.scans import quarantine


def first_of_each_split(
  nodules: list[selection.Nodule], max_per_split: int
) -> list[selection.Nodule]:
  """Returns the first `max_per_split` nodules of each split, in their order."""
  return [
    nodule
    for split in selection.SPLITS
    for nodule in [n for n in nodules if n.split == split][:max_per_split]
  ]


@dataclasses.dataclass(frozen=True)
class Job:
  """What to read from one scan.

  Attributes:
    nodules: nodules of one scan, at least one.
    policy: its slices, consensus and spacing are used here.
    series: the files; None to simulate the attenuation.
    faults: files that cannot be used and may belong to this scan.
  """

  nodules: tuple[selection.Nodule, ...]
  policy: selection.Policy
  series: dicom_series.Series | None = None
  faults: tuple[series_index.FileFault, ...] = ()


def jobs(
  nodules: Iterable[selection.Nodule],
  policy: selection.Policy,
  index: series_index.SeriesIndex | None,
) -> list[Job]:
  """Makes a job for each scan on this disk, in the order of the nodules.

  Args:
    nodules: the nodules to read.
    policy: see `Job`.
    index: the series on this disk; None to simulate the attenuation.

  Returns:
    The jobs.
  """
  by_scan: dict[str, list[selection.Nodule]] = collections.defaultdict(list)
  for nodule in nodules:
    by_scan[nodule.series_uid].append(nodule)
  if index is None:
    return [Job(tuple(members), policy) for members in by_scan.values()]
  return [
    Job(
      tuple(members),
      policy,
      index.series[uid],
      index.faults_near(index.series[uid]),
    )
    for uid, members in by_scan.items()
    if uid in index.series
  ]


class Example(NamedTuple):
  """One patch of one nodule."""

  nodule_id: str
  slice_index: int
  image: np.ndarray  # (64, 64) int16 HU
  votes: np.ndarray  # (64, 64) uint8
  mask: np.ndarray  # (64, 64) uint8


def read(job: Job) -> tuple[list[Example], list[str], list[quarantine.Loss]]:
  """Reads the examples of one scan.

  A nodule with a slice that cannot be read has no examples at all.

  Args:
    job: the scan.

  Returns:
    The examples in the order of the nodules, from the lowest slice; the ids of
    nodules without consensus; the losses.
  """
  examples: list[Example] = []
  dropped: list[str] = []
  losses: list[quarantine.Loss] = []
  planes: dict[str, pixels.Reading] = {}  # by path; nodules may share slices
  for nodule in job.nodules:
    placed = patches.place_nodule(nodule, job.policy)
    if not placed:
      dropped.append(nodule.nodule_id)
    read_slices = []
    for patch in placed:
      image: np.ndarray | None
      if job.series is None:
        image = phantom_patch.simulate(
          nodule, patch, job.policy.slices == 'all'
        )
      else:
        image, loss = read_patch(job, nodule, patch, planes)
        if loss:
          losses.append(loss)
          break
        assert image is not None  # there is either an image or a loss
      read_slices.append(
        Example(
          nodule.nodule_id,
          patch.slice_index,
          image,
          patch.votes,
          patch.mask.astype(np.uint8),
        )
      )
    else:
      examples.extend(read_slices)
  return examples, dropped, losses


def read_patch(
  job: Job,
  nodule: selection.Nodule,
  patch: patches.Patch,
  planes: dict[str, pixels.Reading],
) -> tuple[np.ndarray | None, quarantine.Loss | None]:
  """Reads the attenuation of one patch.

  Args:
    job: the scan, with a series.
    nodule: a nodule of the scan.
    patch: a patch of the nodule.
    planes: slices that were read before, by path; changed in place.

  Returns:
    (image, None), or (None, why it cannot be read).
  """
  z_mm = float(annotations.slice_positions(nodule.scan_id)[patch.slice_index])
  ids = (nodule.nodule_id,)
  loss = None
  assert job.series is not None  # phantoms are simulated instead
  for path in job.series.paths_at(z_mm):
    if path not in planes:
      planes[path] = pixels.try_read_hu(path)
    hu, fault = planes[path]
    if hu is not None:
      image = patches.cut_image(hu, patch)
      # Scanners are noisy even in air, so a constant image was never filled.
      if image.min() < image.max():
        return image, None
      fault = header.Fault(
        'blank', f'is blank: {image[0, 0]} HU around the nodule'
      )
    assert fault is not None  # there are either HU or a fault
    loss = loss or quarantine.Loss(path, fault.kind, fault.reason, ids)
  return None, loss or _missing_slice(job, job.series, z_mm, ids)


def _missing_slice(
  job: Job, series: dicom_series.Series, z_mm: float, ids: tuple[str, ...]
) -> quarantine.Loss:
  """Returns the loss of a faulty file with this slice, or of the folder."""
  for fault in job.faults:
    if (
      fault.series_uid == series.uid
      and fault.z_mm is not None
      and abs(fault.z_mm - z_mm) <= dicom_series.Z_TOLERANCE_MM
    ):
      return quarantine.Loss(fault.path, fault.kind, fault.reason, ids)
  unknown = [f for f in job.faults if f.series_uid is None]
  hint = f'; {unknown[0].path} {unknown[0].reason}' if unknown else ''
  if len(unknown) > 1:
    hint += f' (and {len(unknown) - 1} more there)'
  return quarantine.Loss(
    series.folder,
    'missing slice',
    f'{missing_slice_reason(series, z_mm)}{hint}',
    ids,
  )


def missing_slice_reason(series: dicom_series.Series, z_mm: float) -> str:
  """Describes a missing slice, as the end of a sentence about the folder."""
  return f'lacks the slice at z={z_mm} mm of series {series.uid}'


def crash_loss(job: Job) -> quarantine.Loss:
  """Returns the loss of a scan that crashes the process that reads it."""
  ids = tuple(n.nodule_id for n in job.nodules)
  where = job.series.folder if job.series else ids[0]
  return quarantine.Loss(
    where, 'crash', 'crashes the process that reads it', ids
  )
