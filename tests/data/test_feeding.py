"""Steps see the same examples, on the devices or on the host."""

import jax
import numpy as np
import pytest
import step_job

from mtnet_jax.data import feeding
from mtnet_jax.system import devices


def _feeder(nodules, max_bytes_on_device):
  feed = feeding.Feeder(
    nodules,
    views=3,
    batch_size=2 * jax.device_count(),
    seed=5,
    max_bytes_on_device=max_bytes_on_device,
  )
  feed.put_on_devices()
  return feed


def _seen(feed, step, **calls):
  """Yields the examples that each step reads, with their view and position."""
  data, batches = feed(step, **calls)
  for i in range(calls.get('num_steps', 1)):
    rows = [
      {key: np.asarray(array)[device][index] for key, array in data.items()}
      for device, index in enumerate(batches['index'][:, i])
    ]
    examples = {
      key: np.concatenate([row[key] for row in rows]) for key in rows[0]
    }
    view, position = (
      batches[key][:, i].ravel() for key in ('view', 'position')
    )
    yield examples, view, position


def test_examples_are_the_same_from_the_devices_and_from_the_host():
  nodules = step_job.made_up_nodules(7)
  size = sum(x.nbytes for x in nodules.arrays().values())
  fits, too_large = _feeder(nodules, size), _feeder(nodules, size - 1)
  assert isinstance(fits(0)[0]['image'], jax.Array)
  assert isinstance(too_large(0)[0]['image'], np.ndarray)
  for step in range(2 * fits.steps_per_epoch):
    (from_devices,), (from_host,) = _seen(fits, step), _seen(too_large, step)
    jax.tree.map(np.testing.assert_array_equal, from_devices, from_host)
    index = fits.order_of(step)[:, 0]
    np.testing.assert_array_equal(from_host[0]['image'], nodules.image[index])


@pytest.mark.parametrize(
  'max_bytes_on_device', (0, feeding.MAX_BYTES_ON_DEVICE)
)
def test_steps_of_one_call_see_the_examples_of_separate_calls(
  max_bytes_on_device,
):
  nodules = step_job.made_up_nodules(7)
  feed = _feeder(nodules, max_bytes_on_device)
  # An epoch has three views of 7 nodules; the last batch is filled with others.
  alone = [seen for step in (1, 2, 3) for seen in _seen(feed, step)]
  together = list(_seen(feed, 1, num_steps=3, max_steps=5))
  assert len(together) == len(alone) == 3
  jax.tree.map(np.testing.assert_array_equal, together, alone)


def test_the_host_sends_no_more_than_a_batch():
  nodules = step_job.made_up_nodules(7)
  data, batch = _feeder(nodules, 0)(0)
  assert data['image'].shape == (jax.device_count(), 2, 64, 64)
  np.testing.assert_array_equal(batch['index'], [[[0, 1]]] * jax.device_count())


@pytest.mark.slow
def test_training_is_the_same_bit_for_bit(tmp_path, monkeypatch):
  reference = _losses(tmp_path / 'reference')
  monkeypatch.setattr(feeding, 'MAX_BYTES_ON_DEVICE', 0)
  assert _losses(tmp_path / 'other') == reference


def _losses(directory):
  config = step_job.coarse_config()
  trainer = step_job.coarse_trainer(
    config, step_job.made_up_nodules(6), directory
  )
  state = trainer.put_on_devices(trainer.init_state())
  found = []
  for step in range(3):
    state, losses = trainer.steps(state, step)
    found.append(float(devices.unreplicate(losses['loss'])[0]))
  return found
