"""Makes the images, masks and labels that every contestant computes on."""

import dataclasses

import numpy as np

NETS = ('coarse', 'class', 'fine')
_PHANTOMS = 'lidc_nodules/phantom'


@dataclasses.dataclass(frozen=True)
class Problem:
  """A batch in our layout, as NumPy arrays of float32.

  Attributes:
    images: (B, S, S, 3) in [-1, 1].
    mask: (B, S, S, 1), a disc of 3 % of the image, as large as the largest
      nodules.
    label: (B,) of 0 and 1.
  """

  images: np.ndarray
  mask: np.ndarray
  label: np.ndarray

  def inputs(self, net_name):
    """Returns the inputs of a network, a tuple."""
    coarse = net_name == 'coarse'
    return (self.images,) if coarse else (self.images, self.mask)

  def target(self, net_name):
    """Returns the target of a network."""
    return self.label if net_name == 'class' else self.mask


def make(batch_size, size, seed=0):
  """Makes a `Problem` of random images."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:size, :size] - size / 2
  disc = rows**2 + columns**2 < 0.03 / np.pi * size**2
  mask = np.broadcast_to(disc[..., None], (batch_size, size, size, 1))
  return Problem(
    images=rng.uniform(-1, 1, (batch_size, size, size, 3)).astype(np.float32),
    mask=mask.astype(np.float32),
    label=(np.arange(batch_size) % 2).astype(np.float32),
  )


def phantoms(split, *, data_dir):
  """Loads SIMULATED `nodules.Nodules`, as many as the paper's; builds once."""
  from mtnet_jax.data import lidc

  if not lidc.is_built(_PHANTOMS, data_dir):
    lidc.build_phantoms(_PHANTOMS, data_dir)
  return lidc.load_split(_PHANTOMS, split, data_dir=data_dir)


def discs(num_nodules):
  """Makes `nodules.Nodules` that are discs; the larger ones are malignant."""
  from mtnet_jax.data import nodules

  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[:64, :64]
  radius = rng.uniform(4, 12, (num_nodules, 1, 1))
  mask = (rows - 32) ** 2 + (columns - 32) ** 2 < radius**2
  image = np.where(mask, -50, -850) + rng.normal(0, 40, mask.shape)
  return nodules.Nodules(
    image=image.astype(np.int16),
    mask=mask.astype(np.uint8),
    votes=mask.astype(np.uint8),
    label=(radius[:, 0, 0] > 8).astype(np.int32),
    info={},
    simulated=True,
  )
