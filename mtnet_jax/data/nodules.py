"""Nodules of one split in memory, as NumPy arrays."""

import dataclasses
import hashlib

import numpy as np

from mtnet_jax import metrics


@dataclasses.dataclass(frozen=True)
class Nodules:
  """One split in memory, one entry per nodule.

  Attributes:
    image: (N, P, P) int16 HU.
    mask: (N, P, P) uint8, 0 and 1.
    votes: (N, P, P) uint8, how many readers' contours cover the pixel.
    label: (N,) int32: 0 benign, 1 malignant, -1 open.
    info: name -> (N,) scalars of the records, and the means of the readers'
      ratings by their names ('texture', ...; 'malignancy_rating_mean').
    simulated: whether the attenuation is simulated.
    spacing_mm: in-plane spacing that all patches were resampled to; None where
      each has its scan's own.
  """

  image: np.ndarray
  mask: np.ndarray
  votes: np.ndarray
  label: np.ndarray
  info: dict[str, np.ndarray]
  simulated: bool
  spacing_mm: float | None = None

  def __len__(self):
    return len(self.label)

  def arrays(self):
    """What the training step reads, as a dict."""
    return {'image': self.image, 'mask': self.mask, 'label': self.label}

  def take(self, where):
    """The nodules at some indices or where a mask is true."""
    return _combined([self], lambda arrays: arrays[0][where])

  def labelled(self):
    """Those that are benign or malignant."""
    return self.take(self.label >= 0)


def concatenate(parts):
  """Several `Nodules` of one dataset as one."""
  return _combined(parts, np.concatenate)


def _combined(parts, combine_fn):
  """`Nodules` whose arrays are each made of those of the parts."""
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


def count(nodules):
  """How many nodules of which label, and how many patients."""
  return {
    'nodules': len(nodules),
    **{
      name: int(np.sum(nodules.label == label))
      for label, name in metrics.LABELS.items()
    },
    'patients': len(set(nodules.info['patient_id'].tolist())),
  }


def used_for(splits):
  """The nodules that a run learns from, and those by which it is chosen.

  Args:
    splits: split name -> `Nodules`.

  Returns:
    A set of (nodule_id, patient_id, 'train' or 'validation').
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


def fingerprint(splits):
  """Short hash of nodules: their ids, images, masks and labels.

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
