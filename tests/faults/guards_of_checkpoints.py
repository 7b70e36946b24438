"""Guards of the choice and the location of checkpoints; see `guards`."""

from faults import guard

_AGAIN = 'tests/storage/test_checkpoint_again.py'
_BEST = 'tests/storage/test_checkpoint_best.py'
_HISTORY = 'tests/training/test_trainer_history.py'


def _checkpoint(text, without, tests=_BEST):
  return guard.Guard('mtnet_jax/storage/checkpoint.py', text, without, tests)


def _folders(text, without, tests=_AGAIN):
  return guard.Guard('mtnet_jax/storage/step_folders.py', text, without, tests)


def _history(text, without):
  return guard.Guard('mtnet_jax/storage/histories.py', text, without, _BEST)


def _trainer(text, without, tests):
  return guard.Guard(
    'mtnet_jax/training/trainer.py', text, without, f'{_HISTORY} -k {tests}'
  )


GUARDS = (
  _checkpoint('      _save_again(manager, step, tree, meta)', '      return'),
  _checkpoint(
    '    with step_folders.replaced(manager.directory, step):\n',
    '    manager.delete(step)\n    if True:\n',
    _AGAIN,
  ),
  _checkpoint('      step_folders.mend(directory)\n', '      pass\n', _AGAIN),
  _checkpoint(
    '  except Exception:\n    return False', '  finally:\n    pass', _AGAIN
  ),
  _checkpoint(
    "self._manager('best', keep=None)", "self._manager('best', keep=1)"
  ),
  _checkpoint('    self._delete_discarded()\n', ''),
  _checkpoint('    self._delete_best(lambda other: other > step)\n', ''),
  _checkpoint('wanted <= set(self._best.all_steps())', 'True'),
  _checkpoint(
    '      raise histories.missing(self._directory, step)', '      pass'
  ),
  _checkpoint(
    '    if self._identity is not None:\n      self._identity.check()\n', ''
  ),
  _folders('    if not place.exists():\n      os.replace(path, place)\n', ''),
  _folders('    if not place.exists():\n', '    if True:\n'),
  _folders('(directory / _REPLACED, directory)', '(directory,)'),
  _folders(
    '    os.replace(pathlib.Path(directory, str(step)), removed)\n',
    '    removed = pathlib.Path(directory, str(step))\n',
    _BEST,
  ),
  _history('    history = of_latest(directory)\n', '    pass\n'),
  _history('    raise missing(directory, step)\n', '    return None\n'),
  _history(
    '  except (errors.InputError, KeyError, TypeError):',
    '  except errors.InputError:',
  ),
  guard.Guard(
    'mtnet_jax/inference/bundles.py',
    "  + r'|checkpoints/[^/]+/latest/(\\.replaced/)?[^/]+/meta/metadata'\n",
    '',
    'tests/inference/test_bundles.py -k only_what',
  ),
  _trainer(
    "    self._checkpoints.check_best(meta['history'])\n", '', 'missing_best'
  ),
  _trainer(
    '    self._check_identity()\n    observer.start',
    '    observer.start',
    'was_replaced',
  ),
  _trainer('            self._check_identity()\n', '', 'was_replaced'),
  _trainer('    self._check_identity()\n    path', '    path', 'was_replaced'),
)
