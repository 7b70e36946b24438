"""Upgrades stored configs of runs, and lists the differences between two."""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import os
from typing import Any

from mtnet_jax.system import errors
from mtnet_jax.system import paths

# Former name of a key -> its current name, in the same group.
_FORMER_KEYS = {
  'looks_per_epoch': 'views_per_image',
  'steps_at_once': 'steps_per_call',
  'rank_loss.most': 'max_top_k',
}
# Group -> keys that it did not always have, with the values that reproduce what
# was done without them. A test fails if a new key of configs/mtnet.py is not
# listed here.
_NEW_KEYS: dict[str, dict[str, Any]] = {
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
_MAX_CHARACTERS = 200
# Keys that do not influence the coarse stage of a run.
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


def upgraded(tree: Mapping[str, Any], group: str = '') -> dict[str, Any]:
  """Returns a stored config with the current keys.

  Args:
    tree: the config, or one of its groups, as a dict.
    group: dotted name of the group, with a dot at its end; '' for the config.
  """
  return {
    **_NEW_KEYS.get(group, {}),
    **{
      _FORMER_KEYS.get(group + key, key): (
        upgraded(value, f'{group}{key}.') if isinstance(value, dict) else value
      )
      for key, value in tree.items()
    },
  }


def differences(
  then: Mapping[str, Any],
  now: Mapping[str, Any],
  prefix: str = '',
  *,
  changed: Collection[str] | None = None,
) -> Iterator[str]:
  """Yields a description of each difference between two configs.

  Args:
    then: the earlier config, as a dict of dicts.
    now: the current config, as a dict of dicts.
    prefix: prefix of the keys in descriptions.
    changed: dotted keys that the user set to other values than the config file
      has. A key that `then` lacks counts only if it is one of these; otherwise
      the config file added it, and the user did not ask for it. None if this is
      not known; then every such key counts.
  """
  for key in sorted(then.keys() | now.keys()):
    left, right = then.get(key, 'nothing'), now.get(key, 'nothing')
    path = prefix + key
    if isinstance(left, dict) and isinstance(right, dict):
      yield from differences(left, right, f'{path}.', changed=changed)
    elif key not in then and changed is not None and not _has(changed, path):
      continue
    # Paths are compared with `~` expanded. config.json keeps it, since the home
    # folder differs between machines and users.
    elif not paths.same(left, right):
      yield f'{path[:200]} was {_short(left)} and is now {_short(right)}'


def _short(value):
  """Returns a value as short text; anyone may have written the value."""
  text = errors.one_line(value)
  if len(text) <= _MAX_CHARACTERS:
    return text
  return f'{text[:_MAX_CHARACTERS]}...'


def _has(keys, path):
  """Returns whether `keys` has `path`, a group around it, or a key in it."""
  return any(f'{key}.'.startswith(f'{path}.') for key in keys) or any(
    f'{path}.'.startswith(f'{key}.') for key in keys
  )


def check_stage(
  config: Mapping[str, Any],
  trained_with: Any,
  *,
  stage: str,
  where: str | os.PathLike[str],
) -> None:
  """Checks that a stage was trained with the config of its run.

  The coarse stage may come from another run, as in a sweep, if the two configs
  agree in everything that influences it.

  Args:
    config: config of the run, as a dict.
    trained_with: the config stored with the stage's checkpoints; None for
      checkpoints of earlier versions, which stored none.
    stage: name of the stage.
    where: the checkpoints, for messages.

  Raises:
    errors.InputError: the stage was trained with another config.
  """
  if trained_with is None:
    return
  if not isinstance(trained_with, dict):
    raise errors.InputError(
      f'{where} is damaged: its config is not a group of values. Train in'
      ' another --workdir.'
    )
  then, now = upgraded(trained_with), upgraded(config)
  if stage == 'coarse':
    for key in NOT_OF_THE_COARSE_STAGE:
      then.pop(key, None)
      now.pop(key, None)
  found = list(differences(then, now))
  if found:
    raise errors.InputError(
      f'{where} is from a run with another config than the config.json beside'
      f' it: {"; ".join(found[:3])}. Put back the files that belong there, or'
      ' train in another --workdir.'
    )
