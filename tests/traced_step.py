"""Traces a training step without computing it."""

import functools

import jax

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.system import devices
from mtnet_jax.training import optim
from mtnet_jax.training import options as options_lib
from mtnet_jax.training import start
from mtnet_jax.training import step


def abstract(dtype, *shape):
  """Returns the type and shape of an array, in place of its values."""
  return jax.ShapeDtypeStruct(shape, dtype)


def trace(config, stage):
  """Traces a training step of a stage, on four of nine nodules.

  Returns:
    The jaxpr, and the types and shapes of the state before the step, of the
    state after it, and of the losses.
  """
  nets = nets_lib.make_nets(config, axis_name=devices.AXIS)
  shapes = nets_lib.variable_shapes(config)
  upstream = strategies.upstream_names(config.strategy, stage.name)
  tx = optim.make_optimizer(
    learning_rate=stage.learning_rate,
    schedule=stage.schedule,
    total_steps=9,
    weight_decay=stage.weight_decay,
  )
  variables = start.shapes(stage, size=config.image_size)
  state = step.TrainState(
    step=abstract('int32'),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=jax.eval_shape(tx.init, variables['params']),
    loss_sum=abstract('float32'),
    averaged=variables if config.weight_average else None,
  )
  data = {
    'image': abstract('int16', 9, 64, 64),
    'mask': abstract('uint8', 9, 64, 64),
    'label': abstract('int32', 9),
  }
  batch = {key: abstract('int32', 4) for key in ('index', 'view', 'position')}
  hyperparams = {
    'seed': abstract('uint32'),
    **options_lib.loss_hyperparams(config),
  }
  jaxpr, (new_state, losses) = jax.make_jaxpr(
    functools.partial(
      step.train_step,
      stage=stage,
      nets=tuple((name, nets[name]) for name in upstream),
      tx=tx,
      options=options_lib.step_options(config, steps_per_epoch=3),
    ),
    axis_env=[(devices.AXIS, 1)],
    return_shape=True,
  )(state, {name: shapes[name] for name in upstream}, data, batch, hyperparams)
  return jaxpr, state, new_state, losses
