"""Configs of runs as they are kept, and in what two of them differ."""

from mtnet_jax.system import errors
from mtnet_jax.system import paths

# Keys that configs had before -> their names of today, in the same group.
_FORMER_KEYS = {
  'looks_per_epoch': 'views_per_image',
  'steps_at_once': 'steps_per_call',
  'rank_loss.most': 'max_top_k',
}
# Keys that a group of configs did not have before, and what was done without. A
# test fails where configs/mtnet.py has a new key that is not here.
_NEW_KEYS = {
  '': {
    'cross_entropy_weight': 0.0,
    'start_from': '',
    'start_from_dataset': '',
    'start_from_sha256': '',
    'weight_average': 0.0,
  },
  'class_net.': {'dropout_rate': 0.0},
  'coarse_stage.': {'weight_decay': 0.0},
  'class_stage.': {'weight_decay': 0.0},
  'fine_stage.': {'weight_decay': 0.0},
  'joint_stage.': {'weight_decay': 0.0},
}
_MAX_LETTERS = 200
# What the coarse stage of a run does not depend on.
NOT_OF_THE_COARSE_STAGE = (
  'checkpoint_minutes',
  'class_net',
  'class_stage',
  'class_weight',
  'coarse_mask',
  'eval_batch_size',
  'fine_stage',
  'joint_stage',
  'log_every',
  'stages',
  'unet',
)


def upgraded(tree, group=''):
  """A config as a dict, with the keys that it has today."""
  return {
    **_NEW_KEYS.get(group, {}),
    **{
      _FORMER_KEYS.get(group + key, key): (
        upgraded(value, f'{group}{key}.') if isinstance(value, dict) else value
      )
      for key, value in tree.items()
    },
  }


def differences(then, now, prefix='', *, changed=None):
  """What differs between two configs as dicts, a text for each key.

  Args:
    then, now: the configs.
    prefix: of their keys.
    changed: dotted keys whose values are other than in the config file. What is
      in the file alone, and new there, makes no difference: it is what the file
      does without being asked. None if it is not known; then all makes one.
  """
  for key in sorted(then.keys() | now.keys()):
    left, right = then.get(key, 'nothing'), now.get(key, 'nothing')
    path = prefix + key
    if isinstance(left, dict) and isinstance(right, dict):
      yield from differences(left, right, f'{path}.', changed=changed)
    elif key not in then and changed is not None and not _has(changed, path):
      continue
    # A path stays in config.json as it was given: another machine, or whoever
    # gets the file, has another home folder.
    elif not paths.same(left, right):
      yield f'{path[:200]} was {_short(left)} and is now {_short(right)}'


def _short(value):
  """A value in a message, which anyone may have written."""
  text = errors.one_line(value)
  return text if len(text) <= _MAX_LETTERS else f'{text[:_MAX_LETTERS]}...'


def _has(keys, path):
  """Whether a key is among others, or in a group of them, or a group is."""
  return any(f'{key}.'.startswith(f'{path}.') for key in keys) or any(
    f'{path}.'.startswith(f'{key}.') for key in keys
  )


def check_stage(config, trained_with, *, stage, where):
  """Checks that a stage was trained with the config that stands beside it.

  Another run's coarse stage will do where it was trained alike, as in a sweep.

  Args:
    config: of the run, a dict.
    trained_with: the config that was kept with the stage; None of checkpoints
      that kept none.
    stage: its name.
    where: what holds it.

  Raises:
    errors.InputError: it was trained with another one.
  """
  if trained_with is None:
    return
  if not isinstance(trained_with, dict):
    raise errors.InputError(
      f'{where} is damaged: its config is no group of values. Train in another'
      ' --workdir.'
    )
  then, now = upgraded(trained_with), upgraded(config)
  if stage == 'coarse':
    for key in NOT_OF_THE_COARSE_STAGE:
      then.pop(key, None)
      now.pop(key, None)
  found = list(differences(then, now))
  if found:
    raise errors.InputError(
      f'{where} is of a run with another config than the config.json beside it:'
      f' {"; ".join(found[:3])}. Put back what belongs there, or train in'
      ' another --workdir.'
    )
