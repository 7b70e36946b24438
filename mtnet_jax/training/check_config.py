"""Checks that a run can train with the values of its config.

This comes before anything is built, loaded or written, so that a wrong value
costs no time and leaves no files behind.
"""

import math

import ml_collections

from mtnet_jax.models import nets
from mtnet_jax.models import strategies
from mtnet_jax.storage import config_values
from mtnet_jax.storage import size_limits
from mtnet_jax.system import devices as devices_lib
from mtnet_jax.system import errors

# Length of a value as text. The longest sensible values are paths.
_MAX_CHARACTERS = 4096
# Smallest and largest values, both allowed.
_BOUNDS = {
  'seed': (0, math.inf),
  'dataset.limit': (0, math.inf),
  'dataset.rotate_folds': (0, math.inf),
  'views_per_image': (1, math.inf),
  'eval_batch_size': (1, math.inf),
  'log_every': (1, math.inf),
  'checkpoint_minutes': (0, math.inf),
  'steps_per_call': (0, 1000),
  'rank_loss.top_k': (1, math.inf),
  'rank_loss.max_top_k': (0, math.inf),
  'rank_loss.weight': (0, math.inf),
  'rank_loss.margin': (0, math.inf),
  'augment.crop_shift': (0, 1),
  'augment.zoom_probability': (0, 1),
  'augment.flip_probability': (0, 1),
  'augment.zoom': (0.01, 100),
  'class_weight': (0, math.inf),
  'cross_entropy_weight': (0, math.inf),
  'weight_average': (0, 0.9999),
  **{
    f'{stage}_stage.{key}': (low, math.inf)
    for stage in strategies.STAGES
    for key, low in (
      ('batch_size', 1),
      ('epochs', 0),
      ('learning_rate', 0),
      ('weight_decay', 0),
    )
  },
}
_ONE_OF = {
  f'{stage}_stage.schedule': ('constant', 'cosine')
  for stage in strategies.STAGES
}


def check_config(config: ml_collections.ConfigDict) -> None:
  """Checks every value of a config.

  Args:
    config: of `configs/mtnet.py`.

  Raises:
    errors.InputError: names the first value that cannot be used.
  """
  values = dict(_fields(config))
  for key, value in values.items():
    _check_value(key, value)
  size_limits.check(config)
  for key, (low, high) in _BOUNDS.items():
    value = values[key]
    if not low <= value <= high:
      bound = f'at most {high}' if value > high else f'at least {low}'
      raise errors.InputError(f'config.{key}={value} must be {bound}.')
  for key, known in _ONE_OF.items():
    if values[key] not in known:
      raise errors.InputError(
        f'config.{key}={values[key]!r} must be one of {", ".join(known)}.'
      )
  config_values.check(config)
  _check_stages(config)
  _check_epochs(config)
  crop = config.augment
  if not 0 < crop.crop_min <= crop.crop_max <= 1:
    raise errors.InputError(
      f'config.augment.crop_min={crop.crop_min} and crop_max={crop.crop_max}'
      ' must be fractions with 0 < crop_min <= crop_max <= 1.'
    )
  rank = config.rank_loss
  if rank.max_top_k and rank.top_k > rank.max_top_k:
    raise errors.InputError(
      f'config.rank_loss.top_k={rank.top_k} exceeds'
      f' config.rank_loss.max_top_k={rank.max_top_k}: raise max_top_k, or set'
      ' it to 0.'
    )
  num_devices = devices_lib.device_count()
  for stage in nets.names(config):
    batch_size = config[f'{stage}_stage'].batch_size
    if batch_size % num_devices:
      raise errors.InputError(
        f'config.{stage}_stage.batch_size={batch_size} cannot be split evenly'
        f' over {num_devices} devices: use a multiple of {num_devices}.'
      )


def _check_stages(config):
  """Raises where a stage is unknown, or lacks another one that it needs."""
  unknown = [name for name in config.stages if name not in strategies.STAGES]
  trained = nets.names(config)
  if unknown or not trained:
    raise errors.InputError(
      f'config.stages={tuple(config.stages)} must be some of'
      f' {", ".join(strategies.STAGES)}, with at least one stage of strategy'
      f' {config.strategy!r}:'
      f' {", ".join(strategies.stages_of(config.strategy))}.'
    )
  for stage in trained:
    part = strategies.STRATEGIES[config.strategy][stage]
    needed = {*strategies.INPUTS[part.inputs].upstream, *part.starts_from}
    missing = sorted(needed - set(trained))
    if missing:
      both = [x for x in strategies.STAGES if x in {*trained, *missing}]
      raise errors.InputError(
        f'config.stages={tuple(config.stages)}: stage {stage!r} of strategy'
        f' {config.strategy!r} needs {" and ".join(missing)} as well: set'
        f' --config.stages={",".join(both)}. A stage with 0 epochs is not'
        ' trained but kept as it is in the model of config.start_from; to train'
        ' a classifier without masks, set --config.strategy=single.'
      )
  if (
    'joint' in trained and 'coarse' in trained and config.coarse_mask != 'soft'
  ):
    raise errors.InputError(
      f"config.coarse_mask={config.coarse_mask!r}: strategy 'finetune' needs"
      ' gradients through the mask: set --config.coarse_mask=soft.'
    )


def _check_epochs(config):
  """Raises where a stage without epochs has no model to be copied from."""
  kept = [x for x in nets.names(config) if not config[f'{x}_stage'].epochs]
  if kept and not config.start_from:
    raise errors.InputError(
      f'config.{kept[0]}_stage.epochs=0 keeps the stage as it is in a trained'
      ' model: name the model with --config.start_from=RUN, or give 1 epoch or'
      ' more.'
    )
  if len(kept) == len(nets.names(config)):
    raise errors.InputError(
      'every stage has 0 epochs, so nothing would be trained: to evaluate a'
      ' trained model, use `python -m mtnet_jax.evaluate`.'
    )


def _check_value(key, value):
  if value is None or len(str(value)) > _MAX_CHARACTERS:
    raise errors.InputError(
      f'config.{key} must have a value of at most {_MAX_CHARACTERS} characters.'
    )
  values = value if isinstance(value, (list, tuple)) else [value]
  for one in values:
    if not isinstance(one, (bool, int, float, str)):
      raise errors.InputError(
        f'config.{key}={str(value)[:100]} must hold numbers and texts only.'
      )
    if isinstance(one, int) and abs(one) >= 1 << 31:
      raise errors.InputError(
        f'config.{key} does not fit in 32 bits: use a smaller number.'
      )
    if isinstance(one, float) and not math.isfinite(one):
      raise errors.InputError(f'config.{key}={one} must be finite.')


def _fields(config, prefix=''):
  """Yields the dotted name and the value of every field.

  For example ('seg_net.exit_width', 1024).
  """
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _fields(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value
