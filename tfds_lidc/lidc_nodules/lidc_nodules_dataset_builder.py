"""The TFDS builder of `lidc_nodules`: one 64x64 patch per pulmonary nodule."""

from collections.abc import Iterator
import dataclasses
import hashlib
from typing import Any

from absl import logging
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_lidc import annotations
from tfds_lidc import cohort
from tfds_lidc import dicom
from tfds_lidc import errors
from tfds_lidc import patches
from tfds_lidc import phantom

_IMAGE_SHAPE = (patches.PATCH_SIZE, patches.PATCH_SIZE, 1)

# A nodule, and where its patch lies.
_Placed = tuple[cohort.Nodule, patches.Patch]


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
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
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

  def __init__(self, *, file_format: Any = 'array_record', **kwargs: Any):
    # TFDS's default, tfrecord, cannot be written without TensorFlow.
    super().__init__(file_format=file_format or 'array_record', **kwargs)

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

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    policy = self.builder_config.policy
    nodules = cohort.select(policy)
    series = {}
    if not self.builder_config.simulated:
      series = dicom.index(dl_manager.manual_dir)
      nodules = self._on_disk(nodules, series, dl_manager.manual_dir)

    placed, dropped = [], []
    for nodule in self._progress(nodules, 'outlining nodules'):
      patch = patches.place(
        annotations.reader_masks(nodule.scan_id, nodule.annotation_ids),
        policy.consensus,
      )
      if patch is None:
        dropped.append(nodule.nodule_id)
      else:
        placed.append((nodule, patch))
    if dropped:
      logging.info(
        'No pixel reaches the consensus, dropped: %s', ', '.join(dropped)
      )
    self.info.metadata['dropped'] = dropped
    if not self.builder_config.simulated:
      _check_slices(placed, series)

    # TFDS rejects a split without examples; one patient fills only one.
    splits = {
      split: [p for p in placed if p[0].split == split]
      for split in cohort.SPLITS
    }
    return {
      split: self._generate_examples(members, series, split)
      for split, members in splits.items()
      if members
    }

  def _on_disk(
    self,
    nodules: list[cohort.Nodule],
    series: dict[str, dicom.Series],
    lidc_dir: str,
  ) -> list[cohort.Nodule]:
    """The nodules whose scans are there; counts the others."""
    wanted = {n.series_uid for n in nodules}
    found = wanted & set(series)
    if not found:
      known = {n.series_uid for n in cohort.clusters()} & set(series)
      raise errors.InputError(
        f'none of the {len(series)} CT series below {lidc_dir} has a nodule '
        f'of the config {self.builder_config.name} ({len(known)} of them are '
        'LIDC-IDRI scans with nodules); download more of LIDC-IDRI, or use '
        '--config=all, or --config=phantom, which needs no CT'
      )
    self.info.metadata['scans_used'] = len(found)
    self.info.metadata['scans_missing'] = len(wanted) - len(found)
    logging.info(
      '%d of %d scans found below %s', len(found), len(wanted), lidc_dir
    )
    return [n for n in nodules if n.series_uid in found]

  def _generate_examples(
    self, placed: list[_Placed], series: dict[str, dicom.Series], split: str
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (nodule_id, example), by patient, scan and z."""
    for nodule, patch in self._progress(placed, f'writing {split}'):
      if self.builder_config.simulated:
        image = simulate(nodule, patch)
      else:
        path = series[nodule.series_uid].path_at(_z_mm(nodule, patch))
        image = patches.cut(
          dicom.read_hu(path), patch.row, patch.col, fill=patches.AIR_HU
        )
      yield (
        nodule.nodule_id,
        {
          'image': image[..., None],
          'votes': patch.votes[..., None],
          'mask': patch.mask[..., None].astype(np.uint8),
          **{
            name: np.array(ratings, np.uint8)
            for name, ratings in nodule.ratings.items()
          },
          **{
            name: getattr(nodule, name)
            for name in (
              'label',
              'diameter_mm',
              'pixel_spacing_mm',
              'slice_thickness_mm',
              'num_readers',
              'fold',
              'patient_id',
              'series_uid',
              'nodule_id',
            )
          },
          'slice_index': patch.slice_index,
        },
      )

  def _progress(self, items: list, description: str):
    return tqdm.tqdm(
      items,
      description,
      unit='nodule',
      delay=1,
      mininterval=0.5,
      leave=False,
      disable=not self.show_progress,
    )


def simulate(nodule: cohort.Nodule, patch: patches.Patch) -> np.ndarray:
  """The SIMULATED attenuation of a nodule, the same on every machine and call.

  Args:
    nodule: its ratings and pixel spacing are used.
    patch: its reader masks are used.

  Returns:
    (64, 64) int16, HU.
  """
  # Not `hash`, which differs from process to process.
  seed = hashlib.sha256(nodule.nodule_id.encode()).digest()
  return phantom.simulate_patch(
    patch.reader_masks,
    {name: float(np.mean(r)) for name, r in nodule.ratings.items()},
    pixel_spacing_mm=nodule.pixel_spacing_mm,
    rng=np.random.default_rng(int.from_bytes(seed, 'big')),
  )


def _z_mm(nodule: cohort.Nodule, patch: patches.Patch) -> float:
  return float(annotations.slice_positions(nodule.scan_id)[patch.slice_index])


def _check_slices(
  placed: list[_Placed], series: dict[str, dicom.Series]
) -> None:
  """Raises `InputError` for needed slices without a file, before any work."""
  missing = [
    f'nodule {nodule.nodule_id} needs the slice at z={_z_mm(nodule, patch)} '
    f'mm of series {nodule.series_uid}'
    for nodule, patch in placed
    if series[nodule.series_uid].path_at(_z_mm(nodule, patch)) is None
  ]
  if missing:
    more = f' (and {len(missing) - 3} more)' if len(missing) > 3 else ''
    raise errors.InputError(
      f'incomplete series: {"; ".join(missing[:3])}{more}; download the '
      'series again, or remove its folder to build without it'
    )
