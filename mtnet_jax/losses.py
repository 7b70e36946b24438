"""The losses of MT-Net: Dice, rank and their sum (paper, section 3.2.6).

Each loss returns one float32 value per image, (B,); the training step averages
them.
"""

from __future__ import annotations  # for pydoc, which spells ArrayLike out

import jax
from jax import lax
import jax.numpy as jnp
import optax


def _per_image(probs, mask):
  if probs.shape != mask.shape:
    raise ValueError(
      f'probs {probs.shape} and mask {mask.shape} must have the same shape.'
    )
  batch = probs.shape[0]
  return (
    probs.reshape(batch, -1).astype(jnp.float32),
    mask.reshape(batch, -1).astype(jnp.float32),
  )


def dice_loss(
  probs: jax.Array, mask: jax.Array, *, eps: float = 1e-5
) -> jax.Array:
  """Computes the Dice loss, equation (2): 1 - 2 sum(p g) / (sum(p + g) + eps).

  Args:
    probs: (B, H, W, 1) probabilities of nodule.
    mask: (B, H, W, 1) of 0 and 1.
    eps: avoids a division by 0 where mask and prediction are empty.

  Returns:
    (B,). An image without nodule has a loss of 1.

  Raises:
    ValueError: the shapes differ.
  """
  probs, mask = _per_image(probs, mask)
  overlap = jnp.sum(probs * mask, axis=1)
  return 1 - 2 * overlap / (jnp.sum(probs + mask, axis=1) + eps)


def rank_loss(
  probs: jax.Array,
  mask: jax.Array,
  *,
  top_k: int | jax.Array = 20,
  margin: jax.typing.ArrayLike = 0.3,
  max_top_k: int | None = None,
) -> jax.Array:
  """Computes the rank loss, equation (3), over the hardest pixels.

  The loss is 1 / K^2 * sum over i, j of max(0, H0_i - H1_j + margin). H0 are
  the highest K probabilities of background pixels, H1 the lowest K
  probabilities of nodule pixels.

  Args:
    probs: (B, H, W, 1) probabilities of nodule.
    mask: (B, H, W, 1) of 0 and 1.
    top_k: K, a Python integer, or a traced integer if `max_top_k` is set.
    margin: by how much nodule pixels should exceed background pixels.
    max_top_k: upper bound of a traced `top_k`. This many pixels are selected,
      and those from rank K on are masked, so that one compiled program supports
      every K up to the bound.

  Returns:
    (B,). If a region has fewer than K pixels, all of them count, and the
    divisor is still K^2. An image without nodule or without background has a
    loss of exactly 0.

  Raises:
    ValueError: the shapes differ.
  """
  probs, mask = _per_image(probs, mask)
  is_nodule = mask > 0.5
  limit = int(top_k) if max_top_k is None else max_top_k
  num_pixels = min(limit, probs.shape[1])
  # Errors are in [0, 1], so -1 can mark the pixels of the other region.
  background_error, _ = lax.top_k(jnp.where(is_nodule, -1.0, probs), num_pixels)
  nodule_error, _ = lax.top_k(jnp.where(is_nodule, 1 - probs, -1.0), num_pixels)
  is_selected = jnp.arange(num_pixels)[None] < top_k
  background = is_selected & (background_error >= 0)
  nodule = is_selected & (nodule_error >= 0)
  pairs = background[:, :, None] & nodule[:, None]
  # The errors are e0 = H0 and e1 = 1 - H1, so H0 - H1 = e0 + e1 - 1.
  excess = background_error[:, :, None] + nodule_error[:, None] - 1 + margin
  total = jnp.sum(jnp.where(pairs, jax.nn.relu(excess), 0.0), (1, 2))
  return total / jnp.square(jnp.asarray(top_k, total.dtype))


def hybrid_loss(
  probs: jax.Array,
  mask: jax.Array,
  *,
  rank_weight: jax.typing.ArrayLike = 0.02,
  top_k: int | jax.Array = 20,
  margin: jax.typing.ArrayLike = 0.3,
  max_top_k: int | None = None,
) -> jax.Array:
  """Computes the segmentation loss, equation (1): Dice + rank_weight * rank.

  Args:
    probs: (B, H, W, 1) probabilities of nodule.
    mask: (B, H, W, 1) of 0 and 1.
    rank_weight: weight of the rank loss.
    top_k: see `rank_loss`.
    margin: see `rank_loss`.
    max_top_k: see `rank_loss`.

  Returns:
    (B,).
  """
  ranks = rank_loss(
    probs, mask, top_k=top_k, margin=margin, max_top_k=max_top_k
  )
  return dice_loss(probs, mask) + rank_weight * ranks


def pixel_cross_entropy(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Computes the mean binary cross-entropy over the pixels of each image.

  It is not in the paper. Where the prediction covers most of an image, the
  gradient of the Dice loss is tiny, because it falls with the square of the
  predicted area; the gradient of the cross-entropy does not.

  Args:
    logits: (B, H, W, 1).
    mask: (B, H, W, 1) of 0 and 1.

  Returns:
    (B,).
  """
  return jnp.mean(
    optax.sigmoid_binary_cross_entropy(*_per_image(logits, mask)), axis=1
  )


def classification_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Computes the binary cross-entropy of sigmoid(logits).

  Args:
    logits: (B,).
    labels: (B,) of 0 (benign) and 1 (malignant).

  Returns:
    (B,).
  """
  return optax.sigmoid_binary_cross_entropy(
    logits.astype(jnp.float32), labels.astype(jnp.float32)
  )
