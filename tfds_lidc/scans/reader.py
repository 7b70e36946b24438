"""One scan at a time: places its nodules, reads the slices that they need.

No fault is an exception here: a nodule that cannot be read becomes a loss, and
the others are read.
"""

import collections
from collections.abc import Iterable
import dataclasses
from typing import NamedTuple

import numpy as np

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
  """So many nodules of each split, in their order."""
  return [
    nodule
    for split in selection.SPLITS
    for nodule in [n for n in nodules if n.split == split][:max_per_split]
  ]


@dataclasses.dataclass(frozen=True)
class Job:
  """What to read of one scan.

  Attributes:
    nodules: of one scan, at least one.
    policy: the slices, consensus and spacing that it asks for count here.
    series: the files; None to simulate the attenuation.
    faults: files that may be this scan's, and cannot be used.
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
  """One per scan that is there, in the order of the nodules.

  Args:
    nodules: what to read.
    policy: see `Job`.
    index: what there is; None to simulate the attenuation.
  """
  by_scan = collections.defaultdict(list)
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

  A nodule counts only whole: one slice that cannot be read costs it.

  Args:
    job: the scan.

  Returns:
    The examples in the order of the nodules, from the lowest slice; the ids of
    nodules without consensus; the losses.
  """
  examples, dropped, losses = [], [], []
  planes = {}  # path -> (HU, fault); nodules may share slices
  for nodule in job.nodules:
    placed = patches.place_nodule(nodule, job.policy)
    if not placed:
      dropped.append(nodule.nodule_id)
    read_slices = []
    for patch in placed:
      if job.series is None:
        image = phantom_patch.simulate(
          nodule, patch, job.policy.slices == 'all'
        )
      else:
        image, loss = read_patch(job, nodule, patch, planes)
        if loss:
          losses.append(loss)
          break
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
  planes: dict[str, tuple],
) -> tuple[np.ndarray | None, quarantine.Loss | None]:
  """The attenuation of one patch.

  Args:
    job: the scan.
    nodule: of that scan.
    patch: where.
    planes: slices that were read before, by path; filled here.

  Returns:
    (image, None), or (None, why not).
  """
  z_mm = float(annotations.slice_positions(nodule.scan_id)[patch.slice_index])
  ids = (nodule.nodule_id,)
  loss = None
  for path in job.series.paths_at(z_mm):
    if path not in planes:
      planes[path] = pixels.try_read_hu(path)
    hu, fault = planes[path]
    if fault is None:
      image = patches.cut_image(hu, patch)
      # Even in air no scanner is that quiet: a file that was never filled.
      if image.min() < image.max():
        return image, None
      fault = ('blank', f'is blank: {image[0, 0]} HU around the nodule')
    loss = loss or quarantine.Loss(path, *fault, ids)
  return None, loss or _missing_slice(job, z_mm, ids)


def _missing_slice(
  job: Job, z_mm: float, ids: tuple[str, ...]
) -> quarantine.Loss:
  """A file known to hold the slice, or the folder that misses it."""
  for fault in job.faults:
    if (
      fault.series_uid == job.series.uid
      and abs(fault.z_mm - z_mm) <= dicom_series.Z_TOLERANCE_MM
    ):
      return quarantine.Loss(*fault[:3], ids)
  unknown = [f for f in job.faults if f.series_uid is None]
  hint = f'; {unknown[0].path} {unknown[0].reason}' if unknown else ''
  if len(unknown) > 1:
    hint += f' (and {len(unknown) - 1} more there)'
  return quarantine.Loss(
    job.series.folder,
    'missing slice',
    f'{misses(job.series, z_mm)}{hint}',
    ids,
  )


def misses(series: dicom_series.Series, z_mm: float) -> str:
  """The fault of a missing slice; continues a sentence."""
  return f'misses the slice at z={z_mm} mm of series {series.uid}'


def crash(job: Job) -> quarantine.Loss:
  """The loss of a scan that crashes the process that reads it."""
  ids = tuple(n.nodule_id for n in job.nodules)
  where = job.series.folder if job.series else ids[0]
  return quarantine.Loss(
    where, 'crash', 'crashes the process that reads it', ids
  )
