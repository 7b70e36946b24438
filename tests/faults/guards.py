"""Guards: source code that protects work and users, and the tests of it.

`GUARDS` lists each guard by its text in the source and by the text without it.
`mutants.py` removes them one by one.
"""

from faults import guard
from faults import guards_of_cards
from faults import guards_of_checkpoints
from faults import guards_of_exports
from faults import guards_of_folders
from faults import guards_of_input
from faults import guards_of_models
from faults import guards_of_outputs
from faults import guards_of_shared_places

_CHECKPOINT = (
  'mtnet_jax/storage/checkpoint.py',
  'tests/storage/test_checkpoint_damage.py',
)
_INTERRUPTED = 'tests/training/test_trainer_interrupted.py'


def _checkpoint(text, without):
  file, tests = _CHECKPOINT
  return guard.Guard(file, text, without, tests)


GUARDS = (
  # Runs and checkpoints.
  _checkpoint(
    "damaged = found >= 2 and tensors.digest(state) != meta['sha256']",
    'damaged = False',
  ),
  _checkpoint(
    '  except Exception as error:\n    raise _DamagedError(',
    '  except ZeroDivisionError as error:\n    raise _DamagedError(',
  ),
  _checkpoint(
    '  except (OSError, ValueError) as error:',
    '  except ZeroDivisionError as error:',
  ),
  _checkpoint('  if found not in _READABLE:', '  if False:'),
  guard.Guard(
    'tfds_lidc/folder_swap/staged.py',
    '    with contextlib.suppress(OSError):\n      staged.unlink()\n',
    '',
    'tests/storage/test_files.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    'allow_nan=False',
    'allow_nan=True',
    'tests/storage/test_files.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/locks.py',
    '      stack.enter_context(lock_file.held(path))',
    '      pass',
    'tests/storage/test_run_lock.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/identity.py',
    '      if os.path.samestat(found, os.fstat(self._opened)):',
    '      if True:',
    'tests/storage/test_identity.py',
  ),
  guard.Guard(
    'mtnet_jax/experiments/run.py',
    '  place.check()\n',
    '',
    'tests/experiments/test_moved_directories.py',
  ),
  guard.Guard(
    'mtnet_jax/experiments/sweep_runs.py',
    '  place.check()\n',
    '',
    'tests/experiments/test_moved_directories.py',
  ),
  guard.Guard(
    'mtnet_jax/experiments/sweep_runs.py',
    '  sweep_plan.claim(directory, config, plan)\n\n\n',
    '\n\n',
    'tests/experiments/test_moved_directories.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/identity.py',
    '    if _config(self._workdir) != self._config:',
    '    if False:',
    'tests/storage/test_identity.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/checkpoint.py',
    '        self._check_identity(meta)\n        return serial',
    '        return serial',
    'tests/storage/test_identity.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  elif found := [name for name in _RESULTS',
    '  elif found := [name for name in ()',
    'tests/storage/test_identity.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    "      meta.get('config'),\n      stage",
    '      None,\n      stage',
    'tests/storage/test_identity.py',
  ),
  guard.Guard(
    'mtnet_jax/experiments/run.py',
    '    workdir_lib.check_results(results, config, workdir)',
    '    pass',
    'tests/experiments/test_run.py',
  ),
  guard.Guard(
    'mtnet_jax/experiments/run.py',
    '  locks.enter_context(workdir_lib.lock(workdir))',
    '  pass',
    'tests/storage/test_run_lock.py',
  ),
  guard.Guard(
    'mtnet_jax/system/stopping.py',
    '  os._exit(EXIT_CODE)',
    '  return',
    'tests/system/test_stopping.py',
  ),
  guard.Guard(
    'mtnet_jax/system/stopping.py',
    'while _holding:',
    'while False:',
    'tests/system/test_stopping.py',
  ),
  guard.Guard(
    'mtnet_jax/system/stopping.py',
    '  signal.signal(signal.SIGTERM, _handle)',
    '  pass',
    'tests/system/test_stopping.py',
  ),
  guard.Guard(
    'mtnet_jax/system/processes.py',
    '    os._exit(1)',
    '    raise',
    'tests/system/test_processes.py',
  ),
  # Numbers.
  guard.Guard(
    'mtnet_jax/training/step.py',
    'jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))',
    'jnp.isfinite(loss)',
    f'{_INTERRUPTED} -k gradient',
  ),
  guard.Guard(
    'mtnet_jax/training/calls.py',
    "        if not losses['finite'][i]:",
    '        if False:',
    f'{_INTERRUPTED} -k last_good',
  ),
  guard.Guard(
    'mtnet_jax/training/step.py',
    'carry[0] < num_steps',
    'carry[0] < max_steps',
    'tests/training/test_calls.py -k share_a_call',
  ),
  guard.Guard(
    'mtnet_jax/training/calls.py',
    'return min(remaining, self._num_steps)',
    'return self._num_steps',
    'tests/training/test_calls.py -k a_number_in_the_config',
  ),
  guard.Guard(
    'mtnet_jax/data/feeding.py',
    'index = position % here * max_steps + np.arange(max_steps)',
    'index = position % here',
    'tests/data/test_feeding.py -k one_call',
  ),
  guard.Guard(
    'mtnet_jax/training/trainer.py',
    '    stopping.check()\n    yield batch',
    '    yield batch',
    f'{_INTERRUPTED} -k within',
  ),
  guard.Guard(
    'mtnet_jax/training/trainer.py',
    '        calls.wait()\n        self._save(state, step, history)\n'
    '      raise',
    '        pass\n      raise',
    f'{_INTERRUPTED} -k after_a_step',
  ),
  guard.Guard(
    'mtnet_jax/training/trainer.py',
    '      if stopping.holds():',
    '      if True:',
    f'{_INTERRUPTED} -k dispatched',
  ),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    '        raise OSError(errno.EFBIG,',
    '        return bytes(data)\n        raise OSError(errno.EFBIG,',
    'tests/storage/test_files.py -k anyone_writes',
  ),
  guard.Guard(
    'mtnet_jax/training/check_config.py',
    '  size_limits.check(config)\n',
    '',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  guard.Guard(
    'mtnet_jax/training/check_config.py',
    'if value is None or len(str(value)) > _MAX_CHARACTERS:',
    'if False:',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  guard.Guard(
    'mtnet_jax/training/check_config.py',
    'if isinstance(one, float) and not math.isfinite(one):',
    'if False:',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    '    if _parameters(net) > _MAX_PARAMETERS:',
    '    if False:',
    'tests/storage/test_size_limits.py -k together',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  size_limits.check(tree, where=str(path))\n',
    '',
    'tests/storage/test_size_limits.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    '    or not low <= value <= high',
    '    or low > value or value > high',
    'tests/storage/test_size_limits.py',
  ),
  *guards_of_cards.GUARDS,
  *guards_of_exports.GUARDS,
  *guards_of_checkpoints.GUARDS,
  *guards_of_folders.GUARDS,
  *guards_of_input.GUARDS,
  *guards_of_models.GUARDS,
  *guards_of_outputs.GUARDS,
  *guards_of_shared_places.GUARDS,
)
