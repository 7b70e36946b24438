"""Makes records of a test set whose metrics are known."""

import numpy as np

from mtnet_jax import metrics

PATIENTS = 20


def make_records(*, shift=0.0, first=0, masks=('coarse', 'fine')):
  """Makes two records per patient, with very different metrics.

  Odd nodules are malignant.

  Args:
    shift: added to the metrics of the fine mask.
    first: number of patients, from the first, who are misclassified.
    masks: masks that the records have.
  """
  rng = np.random.default_rng(0)
  records = []
  for i in range(2 * PATIENTS):
    jaccard = rng.uniform(0.2, 0.7)
    record = {
      'nodule_id': f'n{i}',
      'slice_index': 7,
      'patient_id': f'p{i // 2}',
      'label': i % 2,
      'malignancy_probability': 0.9 if (i % 2) != (i // 2 < first) else 0.1,
    }
    for mask in masks:
      value = jaccard + (shift if mask == 'fine' else 0)
      record |= {f'{mask}_{key}': value for key in metrics.SEGMENTATION}
      record |= {f'{mask}_overlap': i, f'{mask}_predicted': 2 * i}
    records.append(record)
  return records
