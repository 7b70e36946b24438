"""What keeps work and users from harm: where, and which test watches over it.

`GUARDS` names every one by its text in the source and by what stands there
without it. `mutants.py` takes them out one by one.
"""

from faults import guard
from faults import guards_of_folders
from faults import guards_of_input

_CHECKPOINT = (
  'mtnet_jax/storage/checkpoint.py',
  'tests/storage/test_checkpoint_damage.py',
)
_INTERRUPTED = 'tests/training/test_trainer_interrupted.py'
_TOGETHER = 'mtnet_jax/storage/together.py'
_WEIGHTS = 'mtnet_jax/weights/files.py'
_HDF5 = 'mtnet_jax/weights/hdf5.py'
_NATIVE = 'mtnet_jax/ops/native/library.py'
_BUILDER = 'tfds_lidc/lidc_nodules/lidc_nodules_dataset_builder.py'
_LOCKS = 'tfds_lidc/lidc_nodules/locks.py'


def _checkpoint(text, without):
  file, tests = _CHECKPOINT
  return guard.Guard(file, text, without, tests)


GUARDS = (
  # Caches, and what several users share.
  guard.Guard(
    _BUILDER,
    '        damage.check(self)',
    '        pass',
    'tests/dataset/lidc_nodules/test_damaged_files.py',
  ),
  guard.Guard(
    _BUILDER,
    '      damage.check_records(self.info)',
    '      pass',
    'tests/dataset/lidc_nodules/test_damaged_files.py',
  ),
  guard.Guard(
    _BUILDER,
    '      if not to_replace:\n        raise damage.found(self, e) from e',
    '      raise damage.found(self, e) from e',
    'tests/dataset/lidc_nodules/test_damaged_files.py -k overwrite',
  ),
  guard.Guard(
    _NATIVE,
    '    if path.name == _whole_name(name, path):',
    '    if path.is_file():',
    'tests/ops/test_native_cache.py',
  ),
  guard.Guard(
    _NATIVE,
    '  except Exception as error:',
    '  except OSError as error:',
    'tests/ops/test_native_cache.py',
  ),
  guard.Guard(
    'mtnet_jax/ops/native/compiler.py',
    '    os.killpg(process.pid, signal.SIGKILL)',
    '    process.kill()',
    'tests/ops/test_native_cache.py -k hangs',
  ),
  guard.Guard(
    'mtnet_jax/ops/native/compiler.py',
    '    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))',
    '    pass',
    'tests/ops/test_native_cache.py -k compile',
  ),
  guard.Guard(
    'mtnet_jax/system/compilation_cache.py',
    'return owned and not status.st_mode & stat.S_IWOTH',
    'return owned',
    'tests/system/test_compilation_cache.py',
  ),
  guard.Guard(
    _LOCKS,
    'flags = os.O_NOFOLLOW | os.O_NONBLOCK',
    'flags = os.O_NONBLOCK',
    'tests/dataset/lidc_nodules/test_build_locks.py',
  ),
  guard.Guard(
    _LOCKS,
    'if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:',
    'if False:',
    'tests/dataset/lidc_nodules/test_build_locks.py',
  ),
  guard.Guard(
    _LOCKS,
    '      if _is_at(descriptor, path):',
    '      if True:',
    'tests/dataset/lidc_nodules/test_build_locks.py',
  ),
  guard.Guard(
    _LOCKS,
    '  if not _is_ours(descriptor):',
    '  if False:',
    'tests/dataset/lidc_nodules/test_build_locks.py',
  ),
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
  _checkpoint('      manager.delete(step)\n', '      return\n'),
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
    'mtnet_jax/storage/workdir.py',
    '    lock.acquire()',
    '    pass',
    'tests/storage/test_run_lock.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/identity.py',
    '    if _place(self._workdir) != self._place:',
    '    if False:',
    'tests/storage/test_identity.py',
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
    f'{_INTERRUPTED} -k handed_over',
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
    'if value is None or len(str(value)) > _MAX_LETTERS:',
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
  *guards_of_folders.GUARDS,
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    "  texts.check_name(manifest.get('name'), folder / MANIFEST)\n",
    '',
    'tests/inference/test_bundles_of_strangers.py -k name',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  texts.check_card(card, folder / CARD)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k card',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  tensors.check_finite(variables, weights)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k weights',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '      check_variables(config, shapes)\n',
    '      pass\n',
    'tests/inference/test_bundles_of_strangers.py -k weights',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  texts.check_tree(tree, path)\n'
    '  texts.check_types(tree, _METRICS_TYPES, path)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k shown',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    '  _check_activations(config, where)\n',
    '',
    'tests/storage/test_size_limits.py -k products',
  ),
  *guards_of_input.GUARDS,
  # Runs, bundles and weights.
  guard.Guard(
    'mtnet_jax/system/errors.py',
    '    RecursionError,\n',
    '',
    'tests/evaluation/test_finished_run.py',
  ),
  guard.Guard(
    'mtnet_jax/system/errors.py',
    '    AttributeError,\n',
    '',
    'tests/evaluation/test_finished_run.py'
    ' tests/inference/test_bundles_of_strangers.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '    if not isinstance(tree[key], dict):',
    '    if False:',
    'tests/storage/test_workdir.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  if path.exists() and not path.is_file():',
    '  if False:',
    'tests/inference/test_bundles_of_strangers.py -k pipe',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  if found != expected:',
    '  if False:',
    'tests/inference/test_bundles.py',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    "'..' not in name.split('/') and ",
    '',
    'tests/inference/test_remote.py',
  ),
  guard.Guard(
    _HDF5,
    '    if not isinstance(group.get(part, getlink=True), h5py.HardLink):',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _HDF5,
    '    if dataset.external or dataset.is_virtual:',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _HDF5,
    '  if sum(dataset.nbytes for dataset in found.values()) > MAX_BYTES:',
    '  if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _WEIGHTS,
    'weights_only=True, ',
    'weights_only=False, ',
    'tests/weights/test_load_refused.py -k code',
  ),
  guard.Guard(
    _WEIGHTS,
    '  if sum(sizes) > hdf5.MAX_BYTES:',
    '  if False:',
    'tests/weights/test_load_refused.py -k claim',
  ),
  guard.Guard(
    _WEIGHTS,
    '  hdf5.probe(path)\n',
    '',
    'tests/weights/test_hdf5.py',
  ),
  # Files that belong together.
  guard.Guard(
    _TOGETHER,
    '  if _is_folder(ready):\n    _move_in(folder, index, ready)',
    '  if False:\n    pass',
    'tests/storage/test_together.py',
  ),
  guard.Guard(
    _TOGETHER,
    '  elif _is_folder(old) and (',
    '  elif False and (',
    'tests/storage/test_together.py',
  ),
  guard.Guard(
    _TOGETHER,
    ' | os.O_NOFOLLOW',
    '',
    'tests/storage/test_together.py -k followed',
  ),
  guard.Guard(
    _TOGETHER,
    '      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n',
    '',
    'tests/storage/test_together.py -k second_writer',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    '    together.mend(out, many_series.INDEX)\n    many',
    '    many',
    'tests/commands/test_predict_whole.py -k mended',
  ),
  guard.Guard(
    'mtnet_jax/ct/results.py',
    '    nodule.views.clear()\n',
    '',
    'tests/commands/test_predict_whole.py -k outlives',
  ),
)
