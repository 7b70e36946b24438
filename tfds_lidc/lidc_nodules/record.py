"""Defines the features of a record, and makes records of patches."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.scans import reader

_IMAGE_SHAPE = (patches.PATCH_SIZE, patches.PATCH_SIZE, 1)


def features() -> tfds.features.FeaturesDict:
  """Returns names, shapes and types; the dataset's README.md explains them."""

  def plane(dtype: type[np.generic]) -> tfds.features.Tensor:
    return tfds.features.Tensor(
      shape=_IMAGE_SHAPE, dtype=dtype, encoding='zlib'
    )

  return tfds.features.FeaturesDict(
    {
      'image': plane(np.int16),
      'votes': plane(np.uint8),
      'mask': plane(np.uint8),
      'label': tfds.features.ClassLabel(names=selection.LABELS),
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
  )


def of_example(
  nodule: selection.Nodule,
  example: reader.Example,
  spacing_mm: float | None,
) -> dict[str, Any]:
  """Makes the record of one patch.

  Args:
    nodule: the nodule.
    example: one patch of the nodule.
    spacing_mm: spacing to which the patch was resampled; None for the scan's
      own.

  Returns:
    Values by name of the feature.
  """
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
