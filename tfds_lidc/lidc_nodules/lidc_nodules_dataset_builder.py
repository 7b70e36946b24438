"""Defines the builder of `lidc_nodules`: a 64x64 patch per pulmonary nodule."""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
import tempfile
from typing import Any

from absl import logging
import tensorflow_datasets as tfds
import tqdm

from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import metaimage
from tfds_lidc.lidc_nodules import damage
from tfds_lidc.lidc_nodules import file_checks
from tfds_lidc.lidc_nodules import file_formats
from tfds_lidc.lidc_nodules import record
from tfds_lidc.lidc_nodules import staging
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch
from tfds_lidc.scans import accounting
from tfds_lidc.scans import files
from tfds_lidc.scans import orientation
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader

# A version of its own, so that new phantoms do not outdate builds from CT.
_PHANTOM_VERSION = '3.0.0'
_MIN_PARALLEL = 16  # scans; below, starting processes takes longer


@dataclasses.dataclass(eq=False, kw_only=True)
class LidcConfig(tfds.core.BuilderConfig):
  """A policy, and the source of the attenuation.

  It also makes configs that are not predefined:
  `tfds.builder('lidc_nodules', config=LidcConfig(name=..., policy=...))`.

  Attributes:
    policy: selects and labels the nodules, and sets the consensus level.
    simulated: True for phantoms, False for CT from the manual directory.
  """

  policy: selection.Policy
  simulated: bool = False


class Builder(tfds.core.GeneratorBasedBuilder):
  """Pulmonary nodules of LIDC-IDRI; needs no TensorFlow.

  Attributes:
    show_progress: whether a build shows progress bars on a terminal.
    workers: number of processes that read headers and scans.
    beam_options: Apache Beam's options if it reads the scans, see `scans.beam`.
    strict: whether a file that cannot be used is an error.
    of_luna16: whether the CT are volumes of LUNA16, see `ct.metaimage`.
    cache_dir: folder that caches headers and scans; None for no cache.
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
      policy=selection.POLICIES['paper'],
      description='CT; the selection of Tang & Zhang 2024: 2 to 4 readers, '
      '3 to 25 mm, at least 2/3 of the decided readers agree.',
    ),
    LidcConfig(
      name='all',
      policy=selection.POLICIES['all'],
      description='CT; every nodule that any reader outlined, labelled by '
      'the mean rating, -1 where that is 3.',
    ),
    LidcConfig(
      name='phantom',
      policy=selection.POLICIES['paper'],
      simulated=True,
      version=tfds.core.Version(_PHANTOM_VERSION),
      release_notes={
        '2.0.0': 'Nearer to the CT of three scans.',
        _PHANTOM_VERSION: 'Nearer to the CT of 618 nodules of 358 patients.',
      },
      description=f'{patch.DESCRIPTION} The nodules of `paper`; needs '
      'no download.',
    ),
  ]

  show_progress = False
  workers = 1
  beam_options: Any = None
  strict = False
  of_luna16 = False
  cache_dir: str | os.PathLike | None = None

  def __init__(
    self, *, file_format: Any = None, to_replace: bool = False, **kwargs: Any
  ):
    """As in TFDS.

    Args:
      file_format: see `file_formats.choose`.
      to_replace: whether the dataset is going to be replaced; may be damaged.
      **kwargs: as in TFDS.

    Raises:
      damage.DamagedError: the files of the dataset are damaged.
    """
    # Before TFDS looks for the dataset and reads its files.
    staging.mend(kwargs.get('data_dir'), type(self).name)
    try:
      super().__init__(**kwargs)
      if file_format is None:
        file_formats.choose(self.info, None)
      if self.is_prepared() and not to_replace:
        damage.check(self)
    except Exception as e:
      # Reading damaged files may raise anything once TFDS knows the folder.
      if isinstance(e, errors.InputError) or '_data_dir' not in vars(self):
        raise
      if not to_replace:
        raise damage.damaged(self, e) from e
    if file_format is not None:
      file_formats.choose(self.info, file_format)

  def _build_data_dir(self, given_data_dir: str | None) -> tuple[str, str]:
    """As in TFDS, which reads the files there next."""
    # Set before TFDS does, for the message of an exception.
    self._data_dir_root, self._data_dir = super()._build_data_dir(
      given_data_dir
    )
    file_checks.check(self._data_dir)
    return self._data_dir_root, self._data_dir

  def is_prepared(self) -> bool:
    """As in TFDS, but without its warning if the dataset is not built."""
    if damage.has_files(self):
      return True
    staging.check_not_stranded(self.data_path)
    return damage.has_files(self)  # another build may just have published it

  def as_dataset(self, *args: Any, **kwargs: Any) -> Any:
    """As in TFDS; reads the TFRecord files, which `build --tfrecord` adds."""
    self._check_built()
    file_formats.use_tfrecord(self.info, damage.build_command(self))
    return super().as_dataset(*args, **kwargs)

  def as_data_source(self, *args: Any, **kwargs: Any) -> Any:
    """As in TFDS; the error of a missing dataset names the build command."""
    self._check_built()
    try:
      damage.check_records(self.info)
    except Exception as e:  # array_record may raise anything
      raise damage.damaged(self, e) from e
    return super().as_data_source(*args, **kwargs)

  def _check_built(self) -> None:
    if not self.is_prepared():
      raise damage.not_built(self)

  def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
    # TFDS would warn of every config that is not predefined.
    if (
      isinstance(builder_config, LidcConfig)
      and builder_config.name not in self.builder_configs
    ):
      return builder_config
    return super()._create_builder_config(builder_config, version)

  def _info(self) -> tfds.core.DatasetInfo:
    """Returns the features; a build adds its sources to `metadata`."""
    card = self.get_metadata()
    return tfds.core.DatasetInfo(
      builder=self,
      # The config's text comes first, as it says SIMULATED.
      description=f'{self.builder_config.description}\n\n{card.description}',
      citation=card.citation,
      homepage='https://www.cancerimagingarchive.net/collection/lidc-idri/',
      license='CC BY 3.0, https://creativecommons.org/licenses/by/3.0/ '
      '(LIDC-IDRI, The Cancer Imaging Archive)',
      features=record.features(),
      supervised_keys=('image', 'label'),
      metadata=tfds.core.MetadataDict(
        simulated=self.builder_config.simulated,
        spacing_mm=self.builder_config.policy.spacing_mm,
      ),
    )

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    self._max_per_split = (
      download_config and download_config.max_examples_per_split
    )
    with contextlib.ExitStack() as stack:
      if self.cache_dir:
        self._scan_dir = files.folder(self.cache_dir, self.builder_config.name)
      else:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        self._scan_dir = pathlib.Path(temporary)
      super()._download_and_prepare(dl_manager, download_config)

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    nodules = selection.select(self.builder_config.policy)
    if not nodules:
      raise errors.InputError(
        f'{self.builder_config.name} selects no nodule at all; python -m '
        'tfds_lidc.cohort --policy=... counts what a policy selects'
      )
    if self.builder_config.simulated:
      if self._max_per_split:  # avoids simulating nodules that TFDS drops
        nodules = reader.first_of_each_split(nodules, self._max_per_split)
      index: series_index.SeriesIndex | None = None
    elif self.of_luna16:
      index = orientation.orient(metaimage.load(self._ct_dir(dl_manager)))
    else:
      index = series_index.load(
        self._ct_dir(dl_manager),
        cache_dir=self.cache_dir,
        workers=self.workers,
        show_progress=self.show_progress,
      )
    # Lists are long, and the processes that read scans do not need them.
    policy = dataclasses.replace(
      self.builder_config.policy, nodules=None, folds=None
    )
    jobs = reader.jobs(nodules, policy, index)
    if index is not None and not jobs:  # phantoms always have jobs
      raise self._nothing_found(index, dl_manager.manual_dir)
    if any(job.series and job.series.simulated for job in jobs):
      self.info.metadata['simulated'] = True
    outcomes = list(self._read_scans(jobs))
    self._account(nodules, outcomes, index)

    # TFDS rejects splits without examples; one patient fills only one of them.
    members = {n.nodule_id: n for n in nodules}
    read = {members[i].split for outcome in outcomes for i in outcome.nodules}
    return {
      split: self._generate_examples(members, outcomes, split)
      for split in selection.SPLITS
      if split in read
    }

  def _ct_dir(self, manager: tfds.download.DownloadManager) -> pathlib.Path:
    """Returns the folder of the CT, which is TFDS's manual directory."""
    try:
      return manager.manual_dir
    except AssertionError:  # it is missing or empty
      raise damage.not_built(self) from None

  def _nothing_found(
    self, index: series_index.SeriesIndex, lidc_dir: os.PathLike[str]
  ) -> errors.InputError:
    known = {n.series_uid for n in selection.clusters()} & set(index.series)
    return errors.InputError(
      f'none of the {len(index.series)} CT series below {lidc_dir} has a '
      f'nodule of the config {self.builder_config.name} ({len(known)} of them '
      'are LIDC-IDRI scans with nodules); download more of LIDC-IDRI, or use '
      '--config=all, or --config=phantom, which needs no CT'
    )

  def _read_scans(self, jobs: list[reader.Job]) -> Iterator[files.Outcome]:
    """Reads every scan to a file, in order."""
    directory = os.fspath(self._scan_dir)
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    if self.beam_options is not None:
      from tfds_lidc.scans import beam  # the extra `beam`

      outcomes = beam.read_scans(jobs, directory, self.beam_options)
    else:
      outcomes = parallel.ordered_map(
        files.ReadToFile(directory),
        jobs,
        workers=self.workers if len(jobs) >= _MIN_PARALLEL else 1,
        on_crash=files.crashed,
      )
    return self._progress(outcomes, 'reading scans', len(jobs))

  def _account(
    self,
    nodules: list[selection.Nodule],
    outcomes: list[files.Outcome],
    index: series_index.SeriesIndex | None,
  ) -> None:
    """Writes the fate of every scan and nodule to metadata and quarantine."""
    metadata = self.info.metadata
    metadata['dropped'] = [i for outcome in outcomes for i in outcome.dropped]
    if metadata['dropped']:
      logging.info(
        'Dropped, as no pixel reaches the consensus: %s',
        ', '.join(metadata['dropped']),
      )
    if index is None:
      return
    counts, losses = accounting.account(
      nodules, outcomes, index.faults, strict=self.strict
    )
    metadata.update(counts)
    quarantine.write(self.data_path, losses, counts)
    logging.info('Built from %s', counts)

  def _generate_examples(
    self,
    members: dict[str, selection.Nodule],
    outcomes: list[files.Outcome],
    split: str,
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, example), by patient, scan and z."""
    policy = self.builder_config.policy
    for outcome in self._progress(outcomes, f'writing {split}', len(outcomes)):
      if not any(members[i].split == split for i in outcome.nodules):
        continue
      for example in files.load_examples(outcome):
        nodule = members[example.nodule_id]
        if nodule.split == split:
          key = nodule.nodule_id
          if policy.slices == 'all':
            key += f'_{example.slice_index}'
          yield key, record.of_example(nodule, example, policy.spacing_mm)

  def _progress(self, scans: Iterable[Any], text: str, total: int) -> Any:
    return tqdm.tqdm(
      scans,
      text,
      total=total,
      unit='scan',
      delay=1,
      mininterval=0.5,
      leave=False,
      disable=None if self.show_progress else True,  # None means only on a tty
    )
