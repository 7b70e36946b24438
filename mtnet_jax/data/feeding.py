"""Feeds examples to the training steps, from the devices or from the host.

A dataset that fits is copied to every device once, and the host sends only the
indices of each batch. A larger dataset stays on the host, which sends the
examples of each batch together with indices into these. The step runs the same
program in both cases: it indexes the data that it receives.
"""

from collections.abc import Mapping

import jax
import numpy as np

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.system import devices

# The largest dataset that is copied to every device. A nodule has 12 KiB, so
# this is enough for 170,000 of them, and an eighth of a 16 GB card.
MAX_BYTES_ON_DEVICE = 2 << 30


class Feeder:
  """The examples of one stage's training, in the order of training.

  Args:
    nodules: the training split.
    views: views of each nodule per epoch; view 0 is the patch without
      augmentation.
    batch_size: examples per step, over all devices.
    seed: of the order of the examples.
    max_bytes_on_device: a dataset of more bytes stays on the host.

  Attributes:
    steps_per_epoch: steps in which every view of every nodule is seen.
  """

  def __init__(
    self,
    nodules: nodules_lib.Nodules,
    *,
    views: int,
    batch_size: int,
    seed: int,
    max_bytes_on_device: int,
  ):
    self.steps_per_epoch = steps_per_epoch(len(nodules), views, batch_size)
    self._arrays = nodules.arrays()
    self._views, self._batch_size, self._seed = views, batch_size, seed
    self._max_bytes_on_device = max_bytes_on_device
    # The epoch of `self._order`.
    self._epoch: int | None = None
    self._on_devices: dict[str, jax.Array] | None = None

  def put_on_devices(self) -> None:
    """Copies the dataset to every device, if it fits."""
    size = sum(array.nbytes for array in self._arrays.values())
    if size <= self._max_bytes_on_device:
      self._on_devices = devices.replicate(self._arrays)

  def order_of(self, step: int) -> np.ndarray:
    """Returns the examples of a step's global batch.

    Args:
      step: counted from 0, over all epochs.

    Returns:
      (batch_size, 2) integers: index of the nodule, and view.
    """
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

  def __call__(
    self, step: int, *, num_steps: int = 1, max_steps: int = 1
  ) -> tuple[Mapping[str, jax.Array | np.ndarray], dict[str, np.ndarray]]:
    """Returns the data and the batches of several steps.

    Args:
      step: the first step, counted from 0.
      num_steps: how many steps.
      max_steps: K, the number of steps that the batches have room for. Batches
        after the first `num_steps` are zeros.

    Returns:
      `data` and `batches` of `step.train_steps` for this process, with a first
      axis of its devices.
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
      # Each device receives only its own examples, in the order of `_flat`, so
      # the indices count these.
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
  """Reshapes (D, b, K, ...) to (D, b * K, ...)."""
  return x.reshape(len(x), -1, *x.shape[3:])


def steps_per_epoch(num_examples: int, views: int, batch_size: int) -> int:
  """Returns the steps in which every view of every example is seen."""
  return -(-num_examples * views // batch_size)


def epoch_order(
  num_examples: int,
  *,
  views: int,
  batch_size: int,
  seed: int | tuple[int, ...],
) -> np.ndarray:
  """Shuffles the views of all examples for one epoch.

  Args:
    num_examples: number of examples.
    views: views of each example; view 0 is the patch without augmentation.
    batch_size: examples per step. If it does not divide the number of views,
      the last batch is filled with views from the start of the order.
    seed: of the random order.

  Returns:
    (steps * batch_size, 2) integers: index of the example, and view.
  """
  rng = np.random.default_rng(seed)
  order = rng.permutation(num_examples * views)
  steps = steps_per_epoch(num_examples, views, batch_size)
  order = np.resize(order, steps * batch_size)
  return np.stack([order // views, order % views], axis=1)
