"""What a training step sends over the devices and keeps, counted by tracing.

Nothing is run: the step of `mtnet_jax.training.step` is traced as one of two
devices, and the forward pass of its network for what it keeps for the backward
pass.
"""

import dataclasses
import functools
import math

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.ops.native import library
from mtnet_jax.system import devices as devices_lib
from mtnet_jax.training import optim
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import step as step_lib

# XLA joins gradients' sums into rounds of so many bytes on GPUs
# (xla_gpu_all_reduce_combine_threshold_bytes).
_ROUND_BYTES = 30 * 2**20
_PATCH = 64
# A parameter, Adam's two averages and a gradient, in float32.
_BYTES_PER_PARAMETER = 4 * 4


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of a training step of one stage.

  Attributes:
    parameters: how many.
    upstream_bytes: variables of the trained networks that run before this one.
    gradient_bytes: summed over the devices at the end of a step, with the
      running statistics and the loss.
    statistics_bytes: summed by the batch norms, on the way.
    rounds: sums over devices, one after the other.
    kept_bytes: from the forward for the backward pass, per image.
    largest_bytes: the largest of what is kept, per image.
  """

  parameters: int
  upstream_bytes: int
  gradient_bytes: int
  statistics_bytes: int
  rounds: int
  kept_bytes: int
  largest_bytes: int

  @property
  def fixed_bytes(self):
    """Of a device, without any image."""
    return _BYTES_PER_PARAMETER * self.parameters + self.upstream_bytes

  def image_bytes(self, *, work):
    """Of a device, per image, `work` of the largest activations included."""
    return self.kept_bytes + work * self.largest_bytes

  def largest_batch(self, capacity_bytes, *, work):
    """Images that fit."""
    room = capacity_bytes - self.fixed_bytes
    return max(0, math.floor(room / self.image_bytes(work=work)))

  def seconds_of_sums(self, devices, *, latency, bandwidth):
    """What a step on so many devices takes beyond computing."""
    sent = 2 * (devices - 1) / devices
    sent *= self.gradient_bytes + self.statistics_bytes
    return self.rounds * latency + sent / bandwidth


@library.portable()
def cost_of(stage, config):
  """The `Cost` of a step of a stage whose batch norms are synchronised."""
  shapes = start.shapes(stage, size=config.image_size)
  nets = nets_lib.make_nets(config)
  upstream_names = strategies.upstream_names(config.strategy, stage.name)
  upstream = {
    other.name: start.shapes(other, size=config.image_size)
    for other in stages.make_stages(config)
    if other.name in upstream_names
  }
  tx = optim.make_optimizer(
    learning_rate=1e-4, schedule='constant', total_steps=1
  )
  step = functools.partial(
    step_lib.train_step,
    stage=stage,
    nets=tuple((name, nets[name]) for name in upstream_names),
    tx=tx,
    options=step_lib.step_options(config, steps_per_epoch=1),
  )
  program = jax.make_jaxpr(step, axis_env=[(devices_lib.AXIS, 2)])(
    _state(shapes, tx), upstream, *_one_example(), _hyperparams(config)
  )
  # With the loss, which is one number.
  at_the_end = bytes_of(shapes) + 4
  # Forward and backward, a batch norm's two sums go together.
  norms = sum(
    path[-1].key == 'mean'
    for path, _ in jax.tree_util.tree_leaves_with_path(shapes['batch_stats'])
  )
  one, two = (_kept(stage, shapes, config.image_size, n) for n in (1, 2))
  each = [bytes_of(b) - bytes_of(a) for a, b in zip(one, two, strict=True)]
  return Cost(
    parameters=bytes_of(shapes['params']) // 4,
    upstream_bytes=bytes_of(upstream),
    gradient_bytes=at_the_end,
    statistics_bytes=sum(summed_bytes(program.jaxpr)) - at_the_end,
    rounds=2 * norms + math.ceil(at_the_end / _ROUND_BYTES),
    kept_bytes=sum(each),
    largest_bytes=max(each),
  )


def bytes_of(tree):
  """Of all leaves, which have a shape and a type."""
  return sum(
    math.prod(x.shape) * np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def summed_bytes(jaxpr):
  """Bytes of what a program sums over its axes, sum by sum."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'psum':
      found.append(bytes_of([x.aval for x in equation.invars]))
    for inner in jax_core.jaxprs_in_params(equation.params):
      found += summed_bytes(inner)
  return found


def _state(shapes, tx):
  return step_lib.TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32),
    params=shapes['params'],
    batch_stats=shapes['batch_stats'],
    opt_state=jax.eval_shape(tx.init, shapes['params']),
    loss_sum=jax.ShapeDtypeStruct((), jnp.float32),
  )


def _one_example():
  """A step's data and batch."""
  patches = (1, _PATCH, _PATCH)
  number = jax.ShapeDtypeStruct((1,), jnp.int32)
  data = {
    'image': jax.ShapeDtypeStruct(patches, jnp.int16),
    'mask': jax.ShapeDtypeStruct(patches, jnp.uint8),
    'label': number,
  }
  return data, {'index': number, 'view': number, 'position': number}


def _hyperparams(config):
  return {'seed': np.uint32(0), **step_lib.loss_hyperparams(config)}


def _kept(stage, shapes, size, batch_size):
  """Shapes of what a network's forward pass keeps, leaf by leaf."""
  inputs = variables_lib.input_shapes(stage.inputs, size, batch_size)
  # Alone, for what it keeps depends on no other device.
  net = stage.net.clone(axis_name=None)

  def residuals(variables, *inputs):
    def forward(params):
      (logits, _), _ = net.apply(
        {**variables, 'params': params},
        *inputs,
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      )
      return logits

    return jax.vjp(forward, variables['params'])[1]

  return jax.tree.leaves(jax.eval_shape(residuals, shapes, *inputs))
