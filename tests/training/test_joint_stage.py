"""A stage that learns both tasks: its loss, and its best epoch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import step_job

from mtnet_jax import losses
from mtnet_jax import metrics
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.training import options
from mtnet_jax.training import stages
from mtnet_jax.training import step
from mtnet_jax.training import trainer as trainer_lib


def _loss(labels, logits, weight):
  config = step_job.config_of_strategy('shared', {'class_weight': weight})
  rng = np.random.default_rng(0)
  mask = jnp.asarray(rng.random((len(labels), 6, 6, 1)) < 0.5, jnp.float32)
  hyperparams = options.loss_hyperparams(config)
  each = step.loss_of_task(
    'both',
    logits,
    {'mask': mask, 'label': jnp.asarray(labels)},
    hyperparams,
    max_top_k=20,
  )
  return each, mask


def test_loss_of_both_tasks_by_hand():
  rng = np.random.default_rng(1)
  masks = {
    name: jnp.asarray(rng.normal(size=(3, 6, 6, 1)), jnp.float32)
    for name in ('coarse', 'fine')
  }
  # -log(1/2), 0 for the open label, -log(1 - 3/4).
  malignant = jnp.asarray([0.0, 7.0, np.log(3.0)], jnp.float32)
  expected_class = np.asarray([np.log(2), 0, np.log(4)])
  for names in (('fine',), ('coarse', 'fine')):
    each, mask = _loss(
      [1, -1, 0],
      {**{name: masks[name] for name in names}, 'class': malignant},
      0.5,
    )
    expected = sum(
      losses.hybrid_loss(1 / (1 + jnp.exp(-masks[name])), mask)
      for name in names
    )
    np.testing.assert_allclose(each, expected + 0.5 * expected_class, rtol=1e-5)


def test_open_labels_give_the_classifier_no_gradient():
  def total(malignant):
    logits = {'fine': jnp.zeros((2, 6, 6, 1)), 'class': malignant}
    return jnp.sum(_loss([-1, 0], logits, 1.0)[0])

  grad = jax.grad(total)(jnp.asarray([3.0, 0.0]))
  np.testing.assert_allclose(grad, [0, 0.5])


@pytest.fixture(name='joint_trainer')
def _joint_trainer(tmp_path):
  config = step_job.config_of_strategy('shared')
  data = step_job.made_up_nodules(6)
  label = np.asarray([1, 0, -1, 1, 0, 0], np.int32)
  data = dataclasses.replace(data, label=label)
  (stage,) = stages.make_stages(config)
  return trainer_lib.Trainer(
    stage,
    config,
    nets=nets_lib.make_nets(config),
    trained={},
    train=data,
    validation=data,
    directory=tmp_path,
  ), data


def test_a_joint_stage_keeps_the_epoch_of_the_best_mean(joint_trainer):
  trainer, data = joint_trainer
  # Nodules with open labels are kept for their masks.
  assert len(trainer._train) == len(data) == 6
  probs = np.array(data.mask, np.float32)
  # Half of the first mask is missing: its Jaccard index is about 1/2.
  probs[0, :, :32] = 0
  # One of the six pairs of a malignant and a benign nodule is in the wrong
  # order: AUC 5/6. With the open label's it would be another.
  malignancy = np.asarray([0.9, 0.1, 1.0, 0.3, 0.4, 0.2], np.float32)
  trainer._upstream_on_devices = {}
  trainer._predictor = lambda *_, **__: {'fine': probs, 'class': malignancy}
  found = trainer.validate({})
  jaccard = metrics.segmentation_metrics(probs[..., None], data.mask[..., None])
  jaccard = jaccard['jaccard'].mean()
  assert 0.9 < jaccard < 0.93
  assert found['jaccard'] == pytest.approx(jaccard)
  assert found['class_auc'] == pytest.approx(5 / 6)
  assert trainer.stage.select_by == 'jaccard_and_auc'
  assert found['jaccard_and_auc'] == pytest.approx((jaccard + 5 / 6) / 2)
  # The accuracies of the two tasks have different names.
  assert found['accuracy'] > 0.99
  assert found['class_accuracy'] == pytest.approx(4 / 5)
