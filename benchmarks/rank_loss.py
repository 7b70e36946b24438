"""Measures the cost of the rank loss, as a share of a training step.

    python -m benchmarks.rank_loss

It times the gradient of the Dice loss with and without the rank term at the
paper's size (224 x 224, K = 20), and one training step of Coarse Seg-net. They
take turns, so that other load on the machine affects all of them alike. The
results are medians.
"""

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jax_contestant
from benchmarks import problem as problem_lib
from benchmarks import timing
from mtnet_jax import losses

_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Batch size.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed rounds.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Compute type of the network.'
)


def main(_):
  """Runs the command."""
  shape = (_BATCH_SIZE.value, _SIZE.value, _SIZE.value, 1)
  problem = problem_lib.make(_BATCH_SIZE.value, _SIZE.value)
  mask = jnp.asarray(problem.mask)
  logits = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)

  def gradient(rank_weight):
    def loss_of(logits):
      probs = jax.nn.sigmoid(logits)
      if rank_weight is None:
        return losses.dice_loss(probs, mask).mean()
      return losses.hybrid_loss(probs, mask, rank_weight=rank_weight).mean()

    return jax.jit(jax.value_and_grad(loss_of))

  dice, hybrid = gradient(None), gradient(0.02)
  step = jax_contestant.Contestant(
    'coarse', problem, mode='step', dtype=_DTYPE.value
  )
  seconds = timing.medians(
    {
      'Dice': lambda: dice(logits),
      'Dice + rank': lambda: hybrid(logits),
      'training step': step,
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
