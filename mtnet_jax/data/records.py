"""Records of a dataset become arrays, if they are what a build writes."""

import numpy as np

from mtnet_jax.data import nodules as nodules_lib

# Scalars of a record that go into records.csv and the report.
_TEXTS = ('nodule_id', 'patient_id', 'series_uid')
_NUMBERS = (
  'slice_index',
  'diameter_mm',
  'pixel_spacing_mm',
  'num_readers',
  'fold',
)
# As many letters as a list of what a model has seen may hold.
_LONGEST = 200


def to_nodules(rows, metadata):
  """Records as `Nodules`.

  Args:
    rows: dicts of a record's fields, as TFDS decodes them.
    metadata: of the dataset; `simulated` and `spacing_mm`.

  Raises:
    ValueError or another: something is not as a build writes it.
  """
  from tfds_lidc.nodules import annotations

  def stack(key, dtype):
    return np.stack([np.asarray(row[key], dtype)[..., 0] for row in rows])

  info = {key: np.asarray([_text(key, row) for row in rows]) for key in _TEXTS}
  for key in _NUMBERS:
    info[key] = np.asarray([_number(key, row) for row in rows])
  for key in annotations.RATINGS:
    # Networks have a word on malignancy, too, as a probability.
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
  """A name of a record, which terminals, tables and pages will show."""
  if not isinstance(row[key], bytes):
    raise ValueError(f'a {key} is no text')
  text = row[key].decode('utf-8')
  if not (0 < len(text) <= _LONGEST and text.isprintable()):
    raise ValueError(
      f'a {key} is not 1 to {_LONGEST} printable letters: {text[:40]!r}'
    )
  return text


def _number(key, row):
  value = np.asarray(row[key])
  if value.shape or value.dtype.kind not in 'iuf':
    raise ValueError(f'a {key} is no number')
  return row[key]
