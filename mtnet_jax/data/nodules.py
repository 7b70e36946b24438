"""The nodules of a split in memory, as NumPy arrays."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np

from mtnet_jax import metrics


@dataclasses.dataclass(frozen=True)
class Nodules:
  """Nodules in memory, one entry per nodule.

  Attributes:
    image: (N, P, P) int16, HU.
    mask: (N, P, P) uint8, 0 or 1.
    votes: (N, P, P) uint8, how many readers' contours cover the pixel.
    label: (N,) int32: 0 benign, 1 malignant, -1 open (the readers disagree).
    info: name -> (N,): the scalars of the records, and the mean of the readers'
      ratings of each characteristic ('texture', ...). The mean rating of
      malignancy is called 'malignancy_rating_mean'.
    simulated: whether the attenuation is simulated.
    spacing_mm: in-plane pixel spacing to which all patches were resampled; None
      where each patch has the spacing of its scan.
  """

  image: np.ndarray
  mask: np.ndarray
  votes: np.ndarray
  label: np.ndarray
  info: dict[str, np.ndarray]
  simulated: bool
  spacing_mm: float | None = None

  def __len__(self) -> int:
    return len(self.label)

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the arrays that the training step reads."""
    return {'image': self.image, 'mask': self.mask, 'label': self.label}

  def take(self, where: np.ndarray | Sequence[int] | slice) -> 'Nodules':
    """Returns some of the nodules.

    Args:
      where: anything that selects entries of a NumPy array: indices, a boolean
        mask (N,) or a slice.
    """
    return _combined([self], lambda arrays: arrays[0][where])

  def labelled(self) -> 'Nodules':
    """Returns the nodules that are benign or malignant."""
    return self.take(self.label >= 0)


def concatenate(parts: Sequence[Nodules]) -> Nodules:
  """Concatenates parts of one dataset."""
  return _combined(parts, np.concatenate)


def _combined(parts, combine_fn):
  """Combines each array of the parts, and each of their `info`."""
  return dataclasses.replace(
    parts[0],
    **{
      name: combine_fn([getattr(part, name) for part in parts])
      for name in ('image', 'mask', 'votes', 'label')
    },
    info={
      name: combine_fn([part.info[name] for part in parts])
      for name in parts[0].info
    },
  )


def count(nodules: Nodules) -> dict[str, int]:
  """Counts the nodules, those of each label, and the patients."""
  return {
    'nodules': len(nodules),
    **{
      name: int(np.sum(nodules.label == label))
      for label, name in metrics.LABELS.items()
    },
    'patients': len(set(nodules.info['patient_id'].tolist())),
  }


def used_for(splits: Mapping[str, Nodules]) -> set[tuple[str, str, str]]:
  """Returns the nodules that a run is trained on or selected by.

  Args:
    splits: split name -> `Nodules`.

  Returns:
    A set of (nodule_id, patient_id, split), where the split is 'train' or
    'validation'.
  """
  return {
    (str(nodule), str(patient), split)
    for split in ('train', 'validation')
    for nodule, patient in zip(
      splits[split].info['nodule_id'],
      splits[split].info['patient_id'],
      strict=True,
    )
  }


def fingerprint(splits: Mapping[str, Nodules]) -> str:
  """Returns a short hash of the nodules' ids, images, masks and labels.

  Args:
    splits: split name -> `Nodules`.
  """
  digest = hashlib.sha256()
  for name in sorted(splits):
    nodules = splits[name]
    ids = ' '.join(map(str, nodules.info['nodule_id']))
    digest.update(f'{name}: {ids}'.encode())
    for array in nodules.arrays().values():
      digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()[:16]
