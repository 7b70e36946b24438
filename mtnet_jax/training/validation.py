"""The validation metrics that select a stage's best epoch."""

from collections.abc import Mapping

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import nodules
from mtnet_jax.training import stage as stage_lib


def selection_metrics(
  stage: stage_lib.Stage,
  outputs: Mapping[str, np.ndarray],
  validation: nodules.Nodules,
) -> dict[str, float]:
  """Computes the metrics of a stage's outputs, `stage.select_by` among them.

  Args:
    stage: the stage.
    outputs: as returned by `predictor.Predictor`, for `validation`.
    validation: the validation split, N nodules.

  Returns:
    Metric name -> mean over the nodules, or over those with a label. Where the
    stage learns both tasks, 'jaccard_and_auc' is the mean of the final mask's
    Jaccard index and the AUC, and the names of the classifier's metrics begin
    with 'class_'.
  """
  if stage.task == 'segmentation':
    return _segmentation(outputs[stage.name], validation.mask)
  classification = _classification(outputs['class'], validation.label)
  if stage.task == 'classification':
    return classification
  segmentation = _segmentation(outputs['fine'], validation.mask)
  return {
    'jaccard_and_auc': (segmentation['jaccard'] + classification['auc']) / 2,
    **segmentation,
    **{f'class_{key}': value for key, value in classification.items()},
  }


def _segmentation(probs, mask):
  values = metrics.segmentation_metrics(
    probs[..., None] >= metrics.THRESHOLD, mask[..., None]
  )
  return {key: float(np.nanmean(x)) for key, x in values.items()}


def _classification(probs, labels):
  return metrics.classification_metrics(probs[labels >= 0], labels[labels >= 0])
