"""What the rank loss costs, as a share of a training step.

    python -m benchmarks.rank_loss

Times gradients of Dice with and without the rank term at the paper's size
(224 x 224, K = 20), and one training step of Coarse Seg-net, all in turn, so
that whatever else the machine does meets them alike. Medians.
"""

import time

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax import losses
from mtnet_jax.models import mtnet

_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Images per step.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Steps that are timed.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Compute type of the network.'
)


def make_step(net, tx):
  """One step of training on the hybrid loss, its old state donated."""

  def step(state, images, mask):
    def loss_of(params):
      (logits, _), updates = net.apply(
        {'params': params, 'batch_stats': state['batch_stats']},
        images,
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      )
      loss = losses.hybrid_loss(jax.nn.sigmoid(logits), mask)
      return loss.mean(), updates['batch_stats']

    grads, batch_stats = jax.grad(loss_of, has_aux=True)(state['params'])
    updates, opt_state = tx.update(grads, state['opt_state'])
    return {
      'params': optax.apply_updates(state['params'], updates),
      'batch_stats': batch_stats,
      'opt_state': opt_state,
    }

  return jax.jit(step, donate_argnums=0)


def median_seconds(functions, *, repeats):
  """Median time of each function, all taking turns; the first compiles."""
  times = {name: [] for name in functions}
  for _ in range(repeats + 1):
    for name, function in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function())
      times[name].append(time.perf_counter() - start)
  return {name: float(np.median(taken[1:])) for name, taken in times.items()}


def main(_):
  shape = (_BATCH_SIZE.value, _SIZE.value, _SIZE.value, 1)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.uniform(-1, 1, (*shape[:3], 3)), jnp.float32)
  # A nodule of 3 % of the image, as the largest ones have.
  rows, columns = np.mgrid[: shape[1], : shape[2]] - _SIZE.value / 2
  disc = rows**2 + columns**2 < 0.03 / np.pi * _SIZE.value**2
  mask = jnp.broadcast_to(disc[..., None], shape).astype(jnp.float32)
  logits = jnp.asarray(rng.normal(size=shape), jnp.float32)

  def gradient(rank_weight):
    def loss_of(logits):
      probs = jax.nn.sigmoid(logits)
      if rank_weight is None:
        return losses.dice_loss(probs, mask).mean()
      return losses.hybrid_loss(probs, mask, rank_weight=rank_weight).mean()

    return jax.jit(jax.value_and_grad(loss_of))

  dice, hybrid = gradient(None), gradient(0.02)
  net = mtnet.CoarseSegNet(dtype=jnp.dtype(_DTYPE.value))
  tx = optax.adam(1e-4)
  variables = jax.jit(lambda key: net.init(key, images[:1], train=False))(
    jax.random.key(0)
  )
  state = {**variables, 'opt_state': tx.init(variables['params'])}
  step = make_step(net, tx)

  def take_step():
    nonlocal state
    state = step(state, images, mask)
    return state

  seconds = median_seconds(
    {
      'Dice': lambda: dice(logits),
      'Dice + rank': lambda: hybrid(logits),
      'training step': take_step,
    },
    repeats=_REPEATS.value,
  )
  device = jax.devices()[0].device_kind
  print(f'{shape} on {device}, {_DTYPE.value}, median of {_REPEATS.value}:')
  for name, value in seconds.items():
    print(f'  {name:15}{1e3 * value:10.2f} ms')
  rank = seconds['Dice + rank'] - seconds['Dice']
  print(f'  rank term: {rank / seconds["training step"]:.2%} of the step')


if __name__ == '__main__':
  app.run(main)
