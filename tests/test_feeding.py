"""Steps see the same examples, wherever the dataset is."""

import jax
import numpy as np
import step_job

from mtnet_jax import feeding
from mtnet_jax import parallel


def _feeder(nodules, most_on_device):
  feed = feeding.Feeder(
    nodules,
    looks=3,
    batch_size=2 * jax.device_count(),
    seed=5,
    most_on_device=most_on_device,
  )
  feed.place()
  return feed


def _seen(feed, step):
  """What a step reads, example by example: index each device's data."""
  data, batch = feed(step)
  rows = [
    {key: np.asarray(array)[device][index] for key, array in data.items()}
    for device, index in enumerate(batch['index'])
  ]
  examples = {
    key: np.concatenate([row[key] for row in rows]) for key in rows[0]
  }
  return examples, batch['look'].ravel(), batch['place'].ravel()


def test_examples_are_the_same_from_the_devices_and_from_the_host():
  nodules = step_job.made_up_nodules(7)
  size = sum(x.nbytes for x in nodules.arrays().values())
  fits, too_large = _feeder(nodules, size), _feeder(nodules, size - 1)
  assert isinstance(fits(0)[0]['image'], jax.Array)
  assert isinstance(too_large(0)[0]['image'], np.ndarray)
  for step in range(2 * fits.steps_per_epoch):
    jax.tree.map(
      np.testing.assert_array_equal, _seen(fits, step), _seen(too_large, step)
    )
    index = fits.order_of(step)[:, 0]
    np.testing.assert_array_equal(
      _seen(too_large, step)[0]['image'], nodules.image[index]
    )


def test_the_host_sends_no_more_than_a_batch():
  nodules = step_job.made_up_nodules(7)
  data, batch = _feeder(nodules, 0)(0)
  assert data['image'].shape == (jax.device_count(), 2, 64, 64)
  np.testing.assert_array_equal(batch['index'], [[0, 1]] * jax.device_count())


def test_training_is_the_same_bit_for_bit(tmp_path, monkeypatch):
  reference = _losses(tmp_path / 'reference')
  monkeypatch.setattr(feeding, 'MOST_ON_DEVICE', 0)
  assert _losses(tmp_path / 'other') == reference


def _losses(directory):
  config = step_job.coarse_config()
  trainer = step_job.coarse_trainer(
    config, step_job.made_up_nodules(6), directory
  )
  state = trainer.place(trainer.fresh_state())
  found = []
  for step in range(3):
    state, losses = trainer.step(state, step)
    found.append(float(parallel.unreplicate(losses['loss'])))
  return found
