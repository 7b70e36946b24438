"""Makes records as TFDS decodes them, without TFDS."""

import numpy as np


def record(index):
  pixels = np.full((2, 2, 1), index)
  return {
    'image': (pixels - 1000).astype(np.int16),
    'mask': (pixels % 2).astype(np.uint8),
    'votes': pixels.astype(np.uint8),
    'label': index - 1,
    'nodule_id': f'n{index}'.encode(),
    'patient_id': b'LIDC-IDRI-0001',
    'series_uid': b'1.2.3',
    'slice_index': 10 + index,
    'diameter_mm': 5.5,
    'pixel_spacing_mm': 0.7,
    'num_readers': 2,
    'fold': 4,
    **{
      name: np.array([1, 4], np.uint8)
      for name in (
        'malignancy',
        'subtlety',
        'calcification',
        'sphericity',
        'margin',
        'lobulation',
        'spiculation',
        'texture',
      )
    },
  }


class Records(list):
  def __getitems__(self, indices):
    return [self[i] for i in indices]
