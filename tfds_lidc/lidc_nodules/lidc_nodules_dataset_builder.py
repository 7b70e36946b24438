"""The TFDS builder of `lidc_nodules`: one 64x64 patch per pulmonary nodule."""

import collections
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
import tempfile
from typing import Any

from absl import logging
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_lidc import annotations
from tfds_lidc import cohort
from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc import patches
from tfds_lidc import phantom
from tfds_lidc import quarantine
from tfds_lidc import scan_files
from tfds_lidc import scan_reader
from tfds_lidc import series_index

_IMAGE_SHAPE = (patches.PATCH_SIZE, patches.PATCH_SIZE, 1)
_FEWEST_PARALLEL = 16  # scans; below, starting processes takes longer


@dataclasses.dataclass(eq=False, kw_only=True)
class LidcConfig(tfds.core.BuilderConfig):
  """A policy, and where the attenuation comes from.

  A policy of one's own works too:
  `tfds.builder('lidc_nodules', config=LidcConfig(name=..., policy=...))`.

  Attributes:
    policy: which nodules, their labels and their consensus level.
    simulated: True for phantoms, False for CT from the manual directory.
  """

  policy: cohort.Policy
  simulated: bool = False


class Builder(tfds.core.GeneratorBasedBuilder):
  """Pulmonary nodules of LIDC-IDRI; needs no TensorFlow.

  Attributes:
    show_progress: whether a build shows progress bars of its own, which know
      their ends; TFDS's do not.
    workers: processes that read scans.
    strict: whether a file that cannot be used ends the build.
    cache_dir: where headers and scans that were read are kept, for the next
      run; None for nowhere.
  """

  VERSION = tfds.core.Version('2.0.0')
  RELEASE_NOTES = {
    '1.0.0': 'First release.',
    '2.0.0': 'Other images in `phantom`, nearer to CT; the rest is the same.',
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  Download the DICOM images of LIDC-IDRI (125 GB, or any of its patients) from
  https://www.cancerimagingarchive.net/collection/lidc-idri/ into the manual
  directory, in any folder layout. The config `phantom` needs no download.
  """
  BUILDER_CONFIGS = [
    LidcConfig(
      name='paper',
      policy=cohort.POLICIES['paper'],
      description='CT; the selection of Tang & Zhang 2024: 2 to 4 readers, '
      '3 to 25 mm, at least 2/3 of the decided readers agree.',
    ),
    LidcConfig(
      name='all',
      policy=cohort.POLICIES['all'],
      description='CT; every nodule that any reader outlined, labelled by '
      'the mean rating, -1 where that is 3.',
    ),
    LidcConfig(
      name='phantom',
      policy=cohort.POLICIES['paper'],
      simulated=True,
      description=f'{phantom.DESCRIPTION} The nodules of `paper`; needs '
      'no download.',
    ),
  ]

  show_progress = False
  workers = 1
  strict = False
  cache_dir: str | os.PathLike | None = None

  def __init__(self, *, file_format: Any = 'array_record', **kwargs: Any):
    # TFDS's default, tfrecord, cannot be written without TensorFlow.
    super().__init__(file_format=file_format or 'array_record', **kwargs)

  def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
    # TFDS warns of every config that is not listed above; these are meant.
    if (
      isinstance(builder_config, LidcConfig)
      and builder_config.name not in self.builder_configs
    ):
      return builder_config
    return super()._create_builder_config(builder_config, version)

  def _info(self) -> tfds.core.DatasetInfo:
    """The features; `metadata` says what a build was made of."""
    card = self.get_metadata()

    def plane(dtype):
      return tfds.features.Tensor(
        shape=_IMAGE_SHAPE, dtype=dtype, encoding='zlib'
      )

    return tfds.core.DatasetInfo(
      builder=self,
      # In front of the card, so that nobody can miss SIMULATED.
      description=f'{self.builder_config.description}\n\n{card.description}',
      citation=card.citation,
      homepage='https://www.cancerimagingarchive.net/collection/lidc-idri/',
      features=tfds.features.FeaturesDict(
        {
          'image': plane(np.int16),
          'votes': plane(np.uint8),
          'mask': plane(np.uint8),
          'label': tfds.features.ClassLabel(names=cohort.LABELS),
          **{
            name: tfds.features.Tensor(shape=(None,), dtype=np.uint8)
            for name in annotations.RATINGS
          },
          'diameter_mm': np.float32,
          'pixel_spacing_mm': np.float32,
          'slice_thickness_mm': np.float32,
          'num_readers': np.int32,
          'fold': np.int32,
          'patient_id': tfds.features.Text(),
          'series_uid': tfds.features.Text(),
          'nodule_id': tfds.features.Text(),
          'slice_index': np.int32,
        }
      ),
      supervised_keys=('image', 'label'),
      metadata=tfds.core.MetadataDict(simulated=self.builder_config.simulated),
    )

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    self._most = download_config and download_config.max_examples_per_split
    with contextlib.ExitStack() as stack:
      if self.cache_dir:
        self._scan_dir = scan_dir(self.cache_dir, self.builder_config.name)
      else:
        self._scan_dir = stack.enter_context(tempfile.TemporaryDirectory())
      super()._download_and_prepare(dl_manager, download_config)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    nodules = cohort.select(self.builder_config.policy)
    if self.builder_config.simulated:
      if self._most:  # else most would be simulated in vain
        nodules = _first_of_each_split(nodules, self._most)
      index, jobs = None, self._jobs(nodules, None)
    else:
      index = series_index.load(
        dl_manager.manual_dir,
        cache_dir=self.cache_dir,
        workers=self.workers,
        show_progress=self.show_progress,
      )
      jobs = self._jobs(nodules, index)
      if not jobs:
        raise self._nothing_found(index, dl_manager.manual_dir)
    if any(job.series and job.series.simulated for job in jobs):
      self.info.metadata['simulated'] = True
    outcomes = list(self._read_scans(jobs))
    self._account(nodules, outcomes, index)

    # TFDS rejects a split without examples; one patient fills only one.
    members = {n.nodule_id: n for n in nodules}
    read = {
      members[nodule_id].split for o in outcomes for nodule_id in o.nodules
    }
    return {
      split: self._generate_examples(members, outcomes, split)
      for split in cohort.SPLITS
      if split in read
    }

  def _jobs(
    self,
    nodules: list[cohort.Nodule],
    index: series_index.SeriesIndex | None,
  ) -> list[scan_reader.Job]:
    """One per scan that is there, in the order of the nodules."""
    by_scan = collections.defaultdict(list)
    for nodule in nodules:
      by_scan[nodule.series_uid].append(nodule)
    policy = self.builder_config.policy
    if index is None:
      return [scan_reader.Job(tuple(n), policy) for n in by_scan.values()]
    return [
      scan_reader.Job(
        tuple(members),
        policy,
        index.series[uid],
        index.faults_near(index.series[uid]),
      )
      for uid, members in by_scan.items()
      if uid in index.series
    ]

  def _nothing_found(
    self, index: series_index.SeriesIndex, lidc_dir: str
  ) -> errors.InputError:
    known = {n.series_uid for n in cohort.clusters()} & set(index.series)
    return errors.InputError(
      f'none of the {len(index.series)} CT series below {lidc_dir} has a '
      f'nodule of the config {self.builder_config.name} '
      f'({len(known)} of them are '
      'LIDC-IDRI scans with nodules); download more of LIDC-IDRI, or use '
      '--config=all, or --config=phantom, which needs no CT'
    )

  def _read_scans(
    self, jobs: list[scan_reader.Job]
  ) -> Iterator[scan_files.Outcome]:
    """Reads every scan to a file, in order."""
    os.makedirs(self._scan_dir, exist_ok=True)
    workers = self.workers if len(jobs) >= _FEWEST_PARALLEL else 1
    return self._progress(
      parallel.ordered_map(
        scan_files.ReadToFile(os.fspath(self._scan_dir)),
        jobs,
        workers=workers,
        on_crash=scan_files.crashed,
      ),
      'reading scans',
      'scan',
      len(jobs),
    )

  def _account(
    self,
    nodules: list[cohort.Nodule],
    outcomes: list[scan_files.Outcome],
    index: series_index.SeriesIndex | None,
  ) -> None:
    """Says what became of every scan and nodule, in metadata and quarantine.

    Raises:
      InputError: something is faulty in a strict build, or no nodule is left.
    """
    metadata = self.info.metadata
    dropped = [nodule_id for o in outcomes for nodule_id in o.dropped]
    metadata['dropped'] = dropped
    if dropped:
      logging.info(
        'No pixel reaches the consensus, dropped: %s', ', '.join(dropped)
      )
    if index is None:
      return
    losses = quarantine.merge(
      [loss for o in outcomes for loss in o.losses], index.faults
    )
    if losses and self.strict:
      raise errors.InputError(quarantine.complaint(losses))
    used = sum(len(o.nodules) for o in outcomes)
    if not used and any(o.losses for o in outcomes):
      raise errors.InputError(
        f'no nodule is left: {quarantine.complaint(losses)}'
      )
    lost = {i for loss in losses for i in loss.nodules}
    whole = sum(bool(o.nodules) or not o.losses for o in outcomes)
    scans = len({n.series_uid for n in nodules})
    counts = {
      'scans_used': whole,
      'scans_missing': scans - len(outcomes),
      'scans_quarantined': len(outcomes) - whole,
      'nodules_used': used,
      'nodules_missing': len(nodules) - used - len(lost) - len(dropped),
      'nodules_quarantined': len(lost),
      'nodules_dropped': len(dropped),
    }
    metadata.update(counts)
    quarantine.write(self.data_path, losses, counts)
    logging.info('Built from %s', counts)

  def _generate_examples(
    self,
    members: dict[str, cohort.Nodule],
    outcomes: list[scan_files.Outcome],
    split: str,
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, example), by patient, scan and z."""
    each_slice = self.builder_config.policy.slices == 'all'
    for outcome in self._progress(
      outcomes, f'writing {split}', 'scan', len(outcomes)
    ):
      if not any(members[i].split == split for i in outcome.nodules):
        continue
      for example in scan_files.load_examples(outcome):
        nodule = members[example.nodule_id]
        if nodule.split == split:
          key = nodule.nodule_id
          if each_slice:
            key += f'_{example.slice_index}'
          yield key, self._features(nodule, example)

  def _features(
    self, nodule: cohort.Nodule, example: scan_reader.Example
  ) -> dict[str, Any]:
    spacing_mm = self.builder_config.policy.spacing_mm
    return {
      'image': example.image[..., None],
      'votes': example.votes[..., None],
      'mask': example.mask[..., None],
      **{
        name: np.array(ratings, np.uint8)
        for name, ratings in nodule.ratings.items()
      },
      **{
        name: getattr(nodule, name)
        for name in (
          'label',
          'diameter_mm',
          'slice_thickness_mm',
          'num_readers',
          'fold',
          'patient_id',
          'series_uid',
          'nodule_id',
        )
      },
      'pixel_spacing_mm': spacing_mm or nodule.pixel_spacing_mm,
      'slice_index': example.slice_index,
    }

  def _progress(self, items: Any, description: str, unit: str, total: int):
    return tqdm.tqdm(
      items,
      description,
      total=total,
      unit=unit,
      delay=1,
      mininterval=0.5,
      leave=False,
      disable=not self.show_progress,
    )


def scan_dir(cache_dir: str | os.PathLike, config_name: str) -> pathlib.Path:
  """Where the scans of one config are kept until it is built."""
  return pathlib.Path(cache_dir) / 'scans' / config_name


def _first_of_each_split(
  nodules: list[cohort.Nodule], most: int
) -> list[cohort.Nodule]:
  first = []
  for split in cohort.SPLITS:
    first += [n for n in nodules if n.split == split][:most]
  return first
