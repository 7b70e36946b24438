"""The losses of MT-Net: Dice, rank and their sum (paper, section 3.2.6).

`probs` and `mask` are (B, H, W, 1): probabilities of nodule, and 0 or 1. Each
loss is per image, (B,), in float32; the trainer takes the mean.
"""

import jax
from jax import lax
import jax.numpy as jnp
import optax


def _per_image(probs, mask):
  if probs.shape != mask.shape:
    raise ValueError(
      f'probs {probs.shape} and mask {mask.shape} must have one shape.'
    )
  batch = probs.shape[0]
  return (
    probs.reshape(batch, -1).astype(jnp.float32),
    mask.reshape(batch, -1).astype(jnp.float32),
  )


def dice_loss(probs, mask, *, eps=1e-5):
  """Dice loss, equation (2): 1 - 2 sum(p g) / (sum(p + g) + eps).

  Args:
    probs: (B, H, W, 1) in [0, 1].
    mask: (B, H, W, 1) of 0 and 1.
    eps: keeps an image without nodule and prediction finite.

  Returns:
    (B,). An image without nodule gives 1.
  """
  probs, mask = _per_image(probs, mask)
  overlap = jnp.sum(probs * mask, axis=1)
  return 1 - 2 * overlap / (jnp.sum(probs + mask, axis=1) + eps)


def rank_loss(probs, mask, *, top_k=20, margin=0.3, max_top_k=None):
  """Rank loss, equation (3), over the pixels hardest to segment.

  1 / K^2 * sum over i, j of max(0, H0_i - H1_j + margin): H0 are the K
  background pixels of highest probability, H1 the K nodule pixels of lowest.

  Args:
    probs: (B, H, W, 1) in [0, 1].
    mask: (B, H, W, 1) of 0 and 1.
    top_k: K, a Python integer, or a traced one where `max_top_k` is given.
    margin: by how much nodule pixels should exceed background pixels.
    max_top_k: the largest that a traced `top_k` may become. So many pixels are
      sorted out, and those from rank K on are masked: one compiled program
      supports every K up to here.

  Returns:
    (B,). A region of fewer than K pixels contributes its real pixels only; an
    image without nodule, or without background, gives exactly 0.
  """
  probs, mask = _per_image(probs, mask)
  is_nodule = mask > 0.5
  count = min(top_k if max_top_k is None else max_top_k, probs.shape[1])
  # Errors lie in [0, 1], so -1 marks pixels of the other region.
  background_error, _ = lax.top_k(jnp.where(is_nodule, -1.0, probs), count)
  nodule_error, _ = lax.top_k(jnp.where(is_nodule, 1 - probs, -1.0), count)
  counts = jnp.arange(count)[None] < top_k
  background = counts & (background_error >= 0)
  nodule = counts & (nodule_error >= 0)
  pairs = background[:, :, None] & nodule[:, None]
  # H0 - H1 = p0 - p1 = e0 + e1 - 1.
  excess = background_error[:, :, None] + nodule_error[:, None] - 1 + margin
  total = jnp.sum(jnp.where(pairs, jax.nn.relu(excess), 0.0), (1, 2))
  return total / jnp.square(jnp.asarray(top_k, total.dtype))


def hybrid_loss(
  probs, mask, *, rank_weight=0.02, top_k=20, margin=0.3, max_top_k=None
):
  """Segmentation loss, equation (1): Dice + rank_weight * rank, (B,)."""
  ranks = rank_loss(
    probs, mask, top_k=top_k, margin=margin, max_top_k=max_top_k
  )
  return dice_loss(probs, mask) + rank_weight * ranks


def pixel_cross_entropy(logits, mask):
  """Binary cross-entropy of sigmoid(logits), the mean over an image's pixels.

  It is not in the paper. Where a mask covers most of an image, the gradient of
  the Dice loss has all but vanished, as it falls with the square of the mask's
  area; this one's has not.

  Args:
    logits: (B, H, W, 1).
    mask: (B, H, W, 1) of 0 and 1.

  Returns:
    (B,).
  """
  return jnp.mean(
    optax.sigmoid_binary_cross_entropy(*_per_image(logits, mask)), axis=1
  )


def classification_loss(logits, labels):
  """Binary cross-entropy of sigmoid(logits), (B,); labels (B,) of 0 and 1."""
  return optax.sigmoid_binary_cross_entropy(
    logits.astype(jnp.float32), labels.astype(jnp.float32)
  )
