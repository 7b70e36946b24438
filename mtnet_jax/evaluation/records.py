"""Makes a record per nodule; every metric is computed from the records."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import reader_agreement


def column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
  """Returns a value of all records, (N,) float64; NaN for missing ones."""
  return np.asarray([record.get(key) for record in records], np.float64)


def select(
  records: Sequence[Mapping[str, Any]], mask: np.ndarray
) -> list[Mapping[str, Any]]:
  """Returns the records where an (N,) mask is true."""
  return [record for record, kept in zip(records, mask, strict=True) if kept]


def count(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  """Counts nodules, labelled nodules, malignant nodules and patients."""
  labels = column(records, 'label')
  return {
    'nodules': len(records),
    'labelled': int((labels >= 0).sum()),
    'malignant': int((labels == 1).sum()),
    'patients': len({record['patient_id'] for record in records}),
  }


def patient_weights(
  records: Sequence[Mapping[str, Any]], *, seed: int
) -> np.ndarray | None:
  """Draws `bootstrap.patient_weights` for the patients of the records."""
  patients = [record['patient_id'] for record in records]
  return bootstrap.patient_weights(patients, seed=seed)


def masks_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns which of 'coarse' and 'fine' have masks in the records."""
  return [
    name
    for name in ('coarse', 'fine')
    if records and f'{name}_dice' in records[0]
  ]


def outputs_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns which of 'coarse', 'fine' and 'class' the records hold."""
  masks = masks_of(records)
  if records and 'malignancy_probability' in records[0]:
    return [*masks, 'class']
  return masks


def make_records(
  nodules: nodules_lib.Nodules,
  outputs: Mapping[str, np.ndarray],
  more: Mapping[str, np.ndarray] | None = None,
  *,
  readers: bool = True,
) -> list[dict[str, Any]]:
  """Makes a dict per nodule: its identity, predictions, and their quality.

  Args:
    nodules: the nodules.
    outputs: outputs of `outputs.predict`; missing outputs have no columns.
    more: further columns, name -> (N,).
    readers: whether to compare with single readers, which takes the most time.

  Returns:
    A list of flat dicts of Python numbers and strings; a metric whose
    denominator is 0 is None.
  """
  columns: dict[str, Any] = {
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
