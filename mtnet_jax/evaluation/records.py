"""One record per nodule, from which every metric follows."""

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import reader_agreement


def column(records, key):
  """(N,) float64 of the records; NaN where one has nothing there."""
  return np.asarray([record.get(key) for record in records], np.float64)


def select(records, mask):
  """The records where an (N,) mask is true."""
  return [record for record, kept in zip(records, mask, strict=True) if kept]


def count(records):
  """How many nodules, of how many patients."""
  labels = column(records, 'label')
  return {
    'nodules': len(records),
    'labelled': int((labels >= 0).sum()),
    'malignant': int((labels == 1).sum()),
    'patients': len({record['patient_id'] for record in records}),
  }


def patient_weights(records, *, seed):
  """`bootstrap.patient_weights` of the patients of the records."""
  patients = [record['patient_id'] for record in records]
  return bootstrap.patient_weights(patients, seed=seed)


def masks_of(records):
  """Which networks have masks in the records: of 'coarse' and 'fine'."""
  return [
    name
    for name in ('coarse', 'fine')
    if records and f'{name}_dice' in records[0]
  ]


def outputs_of(records):
  """Which of 'coarse', 'fine' and 'class' the records hold."""
  masks = masks_of(records)
  if records and 'malignancy_probability' in records[0]:
    return [*masks, 'class']
  return masks


def make_records(nodules, outputs, more=None, *, readers=True):
  """A dict per nodule: who it is, what was predicted, how well.

  Args:
    nodules: `nodules.Nodules`.
    outputs: of `outputs.predict`. What is not in them has no column.
    more: further columns, name -> (N,).
    readers: whether to compare with single readers, too, which takes longest.

  Returns:
    A list of flat dicts of Python numbers and strings; a metric without a
    denominator is None.
  """
  columns = {
    **nodules.info,
    'simulated': np.full(len(nodules), nodules.simulated),
    'label': nodules.label,
  }
  if 'class' in outputs:
    columns['malignancy_probability'] = outputs['class']
  predicted = {
    name: outputs[name] >= metrics.THRESHOLD
    for name in ('coarse', 'fine')
    if name in outputs
  }
  for name, masks in predicted.items():
    counts = metrics.pixel_counts(masks, nodules.mask)
    values = {**metrics.segmentation_from_counts(counts), **counts}
    columns.update({f'{name}_{key}': x for key, x in values.items()})
  if readers:
    columns.update(reader_agreement.columns(nodules, predicted))
  columns.update(more or {})
  return [
    {key: _plain(values[i]) for key, values in columns.items()}
    for i in range(len(nodules))
  ]


def _plain(value):
  value = value.item() if hasattr(value, 'item') else value
  return None if isinstance(value, float) and np.isnan(value) else value
