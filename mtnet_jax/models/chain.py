"""Runs the networks in order, each on the outputs of those before it.

Training and prediction both take the inputs of a network from here, so that
they cannot differ.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax import metrics
from mtnet_jax.models import strategies

COARSE_MASKS = ('hard', 'soft', 'none')


def pass_mask(logits: jax.Array, form: str) -> jax.Array:
  """Returns a predicted mask in the form that other networks receive.

  Args:
    logits: (B, H, W, 1) of the network that predicts the mask.
    form: 'hard' for the thresholded probability, 'soft' for the probability,
      'none' for zeros. The last one is an ablation: the other networks stay the
      same, but learn nothing from this one.

  Returns:
    (B, H, W, 1) in [0, 1].

  Raises:
    ValueError: the form is unknown.
  """
  if form not in COARSE_MASKS:
    raise ValueError(
      f'coarse_mask={form!r} is unknown; it must be one of'
      f' {", ".join(COARSE_MASKS)}.'
    )
  probs = jax.nn.sigmoid(logits)
  if form == 'none':
    return jnp.zeros_like(probs)
  if form == 'soft':
    return probs
  return (probs >= metrics.THRESHOLD).astype(probs.dtype)


def cut_out(images: jax.Array, mask: jax.Array) -> jax.Array:
  """Replaces everything outside the mask by air, the window's lower end.

  Args:
    images: (B, H, W, 3) in [-1, 1].
    mask: (B, H, W, 1) in [0, 1]; a value in between blends image and air.

  Returns:
    (B, H, W, 3) in [-1, 1].
  """
  # Exactly -1 where the mask is 0 and exactly the image where it is 1, so that
  # no trace of the background is left.
  return mask * images + (mask - 1)


def stage_inputs(
  kind: str,
  images: jax.Array,
  outputs: Mapping[str, jax.Array],
  *,
  coarse_mask: str,
) -> tuple[jax.Array, ...]:
  """Returns the inputs of a network.

  Args:
    kind: a name in `strategies.INPUTS`.
    images: (B, H, W, 3) in [-1, 1].
    outputs: outputs of the upstream networks of this kind, as `run` returns
      them.
    coarse_mask: the form of every mask that is passed; see `pass_mask`.

  Returns:
    A tuple of images (B, H, W, 3) and, if the kind has any, maps (B, H, W, C).
  """
  if kind == 'nothing':
    return (images,)
  if kind == 'cut_out':
    return (cut_out(images, pass_mask(outputs['fine'], coarse_mask)),)
  mask = pass_mask(outputs['coarse'], coarse_mask)
  if kind == 'mask':
    return images, mask
  # The sigmoid bounds the map to [0, 1], like the mask.
  cam = jax.image.resize(
    jax.nn.sigmoid(outputs['cam'])[..., None], mask.shape, 'linear'
  )
  return images, jnp.concatenate([mask, cam], -1)


def run(
  names: Iterable[str],
  nets: Mapping[str, nn.Module],
  variables: Mapping[str, Mapping[str, Any]],
  images: jax.Array,
  *,
  strategy: str,
  coarse_mask: str,
) -> dict[str, jax.Array]:
  """Runs trained networks in order, each on the outputs of those before it.

  Args:
    names: stages to run, in the order of `strategies.stages_of`.
    nets: stage name -> network.
    variables: stage name -> variables of its network.
    images: (B, H, W, 3) in [-1, 1].
    strategy: a name in `strategies.STRATEGIES`.
    coarse_mask: the form of every mask that is passed; see `pass_mask`.

  Returns:
    The outputs of the networks that ran: 'coarse' and 'fine' logits
    (B, H, W, 1), 'class' logits (B,), and the class activation map 'cam'
    (B, H', W').
  """
  outputs: dict[str, jax.Array] = {}
  for name in names:
    kind = strategies.STRATEGIES[strategy][name].inputs
    inputs = stage_inputs(kind, images, outputs, coarse_mask=coarse_mask)
    logits, taps = nets[name].apply(variables[name], *inputs, train=False)
    outputs.update(logits if isinstance(logits, dict) else {name: logits})
    if 'cam' in taps:
      outputs['cam'] = taps['cam']
  return outputs
