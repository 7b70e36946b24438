"""Which examples each step of training sees, and where they are kept.

A dataset that fits lives on the devices, and the host sends indices. A larger
one stays on the host, which sends each call the examples of its batches. Steps
cannot tell: they index what they receive, and their results are the same.
"""

import numpy as np

from mtnet_jax.system import devices

# Bytes of a dataset up to which every device holds a copy of it. A nodule has
# 12 KiB, so that this is 170,000 of them, or an eighth of a 16 GB card.
MAX_BYTES_ON_DEVICE = 2 << 30


class Feeder:
  """The examples of one stage's training.

  Args:
    nodules: `nodules.Nodules`.
    views: how often each comes in an epoch; view 0 is the plain patch.
    batch_size: over all devices.
    seed: of the order.
    max_bytes_on_device: bytes; a larger dataset stays on the host.

  Attributes:
    steps_per_epoch: steps in which every view of every nodule comes.
  """

  def __init__(self, nodules, *, views, batch_size, seed, max_bytes_on_device):
    self.steps_per_epoch = steps_per_epoch(len(nodules), views, batch_size)
    self._arrays = nodules.arrays()
    self._views, self._batch_size, self._seed = views, batch_size, seed
    self._max_bytes_on_device = max_bytes_on_device
    # The epoch whose order is at hand.
    self._epoch = None
    self._on_devices = None

  def put_on_devices(self):
    """Puts the dataset on the devices, if it fits."""
    size = sum(array.nbytes for array in self._arrays.values())
    if size <= self._max_bytes_on_device:
      self._on_devices = devices.replicate(self._arrays)

  def order_of(self, step):
    """(batch_size, 2): the examples and views of a step, from 0."""
    epoch, position = divmod(step, self.steps_per_epoch)
    if epoch != self._epoch:
      self._epoch = epoch
      self._order = epoch_order(
        len(self._arrays['label']),
        views=self._views,
        batch_size=self._batch_size,
        seed=(self._seed, epoch),
      )
    size = self._batch_size
    return self._order[position * size : (position + 1) * size]

  def __call__(self, step, *, num_steps=1, max_steps=1):
    """What the devices need for some steps, from that one on.

    Args:
      step: from 0.
      num_steps: how many.
      max_steps: steps for which there is room; the last ones stay empty.

    Returns:
      The arguments `data` and `batches` of `step.train_steps`: of every device
      of this process, along a first axis.
    """
    orders = np.zeros((self._batch_size, max_steps, 2), np.int64)
    for i in range(num_steps):
      orders[:, i] = self.order_of(step + i)
    index, view = orders[..., 0], orders[..., 1]
    position = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    if self._on_devices is None:
      data = {
        key: _flat(array[devices.share(index)])
        for key, array in self._arrays.items()
      }
      # A device receives the examples of its own batches, and no others.
      here = len(index) // devices.device_count()
      index = position % here * max_steps + np.arange(max_steps)
    else:
      data = self._on_devices
    batches = {'index': index, 'view': view, 'position': position}
    return data, {
      key: devices.share(value.astype(np.int32)).swapaxes(1, 2)
      for key, value in batches.items()
    }


def _flat(x):
  """(D, b, K, ...) -> (D, b * K, ...)."""
  return x.reshape(len(x), -1, *x.shape[3:])


def steps_per_epoch(num_examples, views, batch_size):
  """Steps in which every view of every example comes at least once."""
  return -(-num_examples * views // batch_size)


def epoch_order(num_examples, *, views, batch_size, seed):
  """Examples and views of one epoch, in the order of training.

  Args:
    num_examples: N.
    views: how often each example comes; view 0 is the plain patch.
    batch_size: the order is filled up to a multiple of it from its own start,
      so that no view is left out.
    seed: a number or a tuple of numbers.

  Returns:
    (steps * batch_size, 2) integers: index, view.
  """
  rng = np.random.default_rng(seed)
  order = rng.permutation(num_examples * views)
  steps = steps_per_epoch(num_examples, views, batch_size)
  order = np.resize(order, steps * batch_size)
  return np.stack([order // views, order % views], axis=1)
