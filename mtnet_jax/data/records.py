"""Converts records of the dataset to arrays, and checks them."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtnet_jax.data import nodules as nodules_lib

# Fields of a record that go into records.csv and the report.
_TEXTS = ('nodule_id', 'patient_id', 'series_uid')
_NUMBERS = (
  'slice_index',
  'diameter_mm',
  'pixel_spacing_mm',
  'num_readers',
  'fold',
)
# Characters of an id; as many as seen.csv allows.
_MAX_CHARACTERS = 200


def to_nodules(
  rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]
) -> nodules_lib.Nodules:
  """Converts records to `Nodules`.

  Where a record is not as a build writes it, this raises a `ValueError`, or
  whichever exception NumPy raises.

  Args:
    rows: the records' fields, as decoded by TFDS.
    metadata: the dataset's; `simulated` and `spacing_mm` are used.
  """
  from tfds_lidc.nodules import annotations

  def stack(key, dtype):
    return np.stack([np.asarray(row[key], dtype)[..., 0] for row in rows])

  info = {key: np.asarray([_text(key, row) for row in rows]) for key in _TEXTS}
  for key in _NUMBERS:
    info[key] = np.asarray([_number(key, row) for row in rows])
  for key in annotations.RATINGS:
    # 'malignancy' would be confused with the networks' probability.
    name = 'malignancy_rating_mean' if key == 'malignancy' else key
    info[name] = np.asarray([np.mean(row[key]) for row in rows])
  return nodules_lib.Nodules(
    image=stack('image', np.int16),
    mask=stack('mask', np.uint8),
    votes=stack('votes', np.uint8),
    label=np.asarray([row['label'] for row in rows], np.int32),
    info=info,
    simulated=bool(metadata['simulated']),
    spacing_mm=metadata.get('spacing_mm'),
  )


def _text(key, row):
  """Returns a text field that is safe to show in terminals and pages."""
  if not isinstance(row[key], bytes):
    raise ValueError(f'a {key} is not text')
  text = row[key].decode('utf-8')
  if not (0 < len(text) <= _MAX_CHARACTERS and text.isprintable()):
    raise ValueError(
      f'a {key} is not 1 to {_MAX_CHARACTERS} printable characters:'
      f' {text[:40]!r}'
    )
  return text


def _number(key, row):
  value = np.asarray(row[key])
  if value.shape or value.dtype.kind not in 'iuf':
    raise ValueError(f'a {key} is not a number')
  return row[key]
