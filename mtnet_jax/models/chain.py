"""What networks receive from those before them, in training and prediction."""

import jax
import jax.numpy as jnp

from mtnet_jax import metrics
from mtnet_jax.models import strategies

COARSE_MASKS = ('hard', 'soft', 'none')


def pass_mask(logits, form):
  """A mask as the other networks receive it.

  Args:
    logits: (B, H, W, 1) of the network that predicts it.
    form: 'hard' thresholds the probability, 'soft' passes it, 'none' passes
      zeros: the same networks without what the other one knows.
  """
  if form not in COARSE_MASKS:
    raise ValueError(f'the coarse mask is {COARSE_MASKS}, not {form!r}.')
  probs = jax.nn.sigmoid(logits)
  if form == 'none':
    return jnp.zeros_like(probs)
  if form == 'soft':
    return probs
  return (probs >= metrics.THRESHOLD).astype(probs.dtype)


def cut_out(images, mask):
  """Images with air, the window's lower end, wherever the mask is 0.

  Args:
    images: (B, H, W, 3) in [-1, 1].
    mask: (B, H, W, 1); between 0 and 1 it fades towards air.
  """
  # Exact where the mask is 0 or 1: nothing remains of what is cut away.
  return mask * images + (mask - 1)


def stage_inputs(kind, images, outputs, *, coarse_mask):
  """Inputs of a network.

  Args:
    kind: a name in `strategies.INPUTS`.
    images: (B, H, W, 3) in [-1, 1].
    outputs: of `run`, with those of the kind's upstream networks.
    coarse_mask: the `form` in `pass_mask` of every mask that is passed.

  Returns:
    A tuple: images (B, H, W, 3), and maps (B, H, W, C) where the kind has any.
  """
  if kind == 'nothing':
    return (images,)
  if kind == 'cut_out':
    return (cut_out(images, pass_mask(outputs['fine'], coarse_mask)),)
  mask = pass_mask(outputs['coarse'], coarse_mask)
  if kind == 'mask':
    return images, mask
  # As probabilities: bounded as the mask is.
  cam = jax.image.resize(
    jax.nn.sigmoid(outputs['cam'])[..., None], mask.shape, 'linear'
  )
  return images, jnp.concatenate([mask, cam], -1)


def run(names, nets, variables, images, *, strategy, coarse_mask):
  """Runs trained networks in order, each on the outputs of those before it.

  Args:
    names: of stages, in the order of `strategies.stages_of`.
    nets, variables: stage name -> network, and its variables.
    images: (B, H, W, 3) in [-1, 1].
    strategy: a name in `strategies.STRATEGIES`.
    coarse_mask: the `form` in `pass_mask`.

  Returns:
    A dict of their outputs: 'coarse' and 'fine' logits (B, H, W, 1), 'class'
    logits (B,), 'cam' (B, H', W').
  """
  outputs = {}
  for name in names:
    kind = strategies.STRATEGIES[strategy][name].inputs
    inputs = stage_inputs(kind, images, outputs, coarse_mask=coarse_mask)
    logits, taps = nets[name].apply(variables[name], *inputs, train=False)
    outputs.update(logits if isinstance(logits, dict) else {name: logits})
    if 'cam' in taps:
      outputs['cam'] = taps['cam']
  return outputs
