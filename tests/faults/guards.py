"""What keeps work and users from harm: where, and which test watches over it.

`GUARDS` names every one by its text in the source and by what stands there
without it. `mutants.py` takes them out one by one.
"""

from typing import NamedTuple


class Guard(NamedTuple):
  """A guard in the source.

  Attributes:
    file: from the root.
    text: stands there exactly once.
    without: what stands there without the guard.
    tests: arguments of pytest, which must fail then.
  """

  file: str
  text: str
  without: str
  tests: str


_CHECKPOINT = (
  'mtnet_jax/storage/checkpoint.py',
  'tests/storage/test_checkpoint_damage.py',
)
_INTERRUPTED = 'tests/training/test_trainer_interrupted.py'
_PIXELS, _HEADER = 'tfds_lidc/ct/pixels.py', 'tfds_lidc/ct/header.py'
_GEOMETRY = 'mtnet_jax/ct/geometry.py'
_WEIGHTS = 'mtnet_jax/weights/files.py'
_HDF5 = 'mtnet_jax/weights/hdf5.py'


def _checkpoint(text, without):
  file, tests = _CHECKPOINT
  return Guard(file, text, without, tests)


GUARDS = (
  # Runs and checkpoints.
  _checkpoint(
    "damaged = found >= 2 and _digest(state) != meta['sha256']",
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
  Guard(
    'mtnet_jax/storage/files.py',
    '      temporary.unlink(missing_ok=True)\n      raise',
    '      raise',
    'tests/storage/test_files.py',
  ),
  Guard(
    'mtnet_jax/storage/files.py',
    'allow_nan=False',
    'allow_nan=True',
    'tests/storage/test_files.py',
  ),
  Guard(
    'mtnet_jax/storage/workdir.py',
    '    lock.acquire()',
    '    pass',
    'tests/storage/test_run_lock.py',
  ),
  Guard(
    'mtnet_jax/experiments/run.py',
    '  locks.enter_context(workdir_lib.lock(workdir))',
    '  pass',
    'tests/storage/test_run_lock.py',
  ),
  Guard(
    'mtnet_jax/system/stopping.py',
    '  os._exit(EXIT_CODE)',
    '  return',
    'tests/system/test_stopping.py',
  ),
  Guard(
    'mtnet_jax/system/stopping.py',
    'while _holding:',
    'while False:',
    'tests/system/test_stopping.py',
  ),
  Guard(
    'mtnet_jax/system/stopping.py',
    '  signal.signal(signal.SIGTERM, _handle)',
    '  pass',
    'tests/system/test_stopping.py',
  ),
  Guard(
    'mtnet_jax/system/processes.py',
    '    os._exit(1)',
    '    raise',
    'tests/system/test_processes.py',
  ),
  # Numbers.
  Guard(
    'mtnet_jax/training/step.py',
    'jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))',
    'jnp.isfinite(loss)',
    f'{_INTERRUPTED} -k gradient',
  ),
  Guard(
    'mtnet_jax/training/calls.py',
    "        if not losses['finite'][i]:",
    '        if False:',
    f'{_INTERRUPTED} -k last_good',
  ),
  Guard(
    'mtnet_jax/training/step.py',
    'carry[0] < num_steps',
    'carry[0] < max_steps',
    'tests/training/test_calls.py -k share_a_call',
  ),
  Guard(
    'mtnet_jax/training/calls.py',
    'return min(remaining, self._num_steps)',
    'return self._num_steps',
    'tests/training/test_calls.py -k a_number_in_the_config',
  ),
  Guard(
    'mtnet_jax/data/feeding.py',
    'index = position % here * max_steps + np.arange(max_steps)',
    'index = position % here',
    'tests/data/test_feeding.py -k one_call',
  ),
  Guard(
    'mtnet_jax/training/trainer.py',
    '    stopping.check()\n    yield batch',
    '    yield batch',
    f'{_INTERRUPTED} -k within',
  ),
  Guard(
    'mtnet_jax/training/trainer.py',
    '        calls.wait()\n        self._save(state, step, history)\n'
    '      raise',
    '        pass\n      raise',
    f'{_INTERRUPTED} -k after_a_step',
  ),
  Guard(
    'mtnet_jax/training/trainer.py',
    '      if stopping.holds():',
    '      if True:',
    f'{_INTERRUPTED} -k handed_over',
  ),
  Guard(
    'mtnet_jax/storage/files.py',
    '        raise OSError(errno.EFBIG,',
    '        return bytes(data)\n        raise OSError(errno.EFBIG,',
    'tests/storage/test_files.py -k anyone_writes',
  ),
  Guard(
    'mtnet_jax/training/check_config.py',
    '  size_limits.check(config)\n',
    '',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  Guard(
    'mtnet_jax/training/check_config.py',
    'if value is None or len(str(value)) > _MAX_LETTERS:',
    'if False:',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  Guard(
    'mtnet_jax/training/check_config.py',
    'if isinstance(one, float) and not math.isfinite(one):',
    'if False:',
    'tests/commands/test_bad_input.py -k values_that',
  ),
  Guard(
    'mtnet_jax/storage/size_limits.py',
    '    if _parameters(net) > _MAX_PARAMETERS:',
    '    if False:',
    'tests/storage/test_size_limits.py -k together',
  ),
  Guard(
    'mtnet_jax/storage/workdir.py',
    '  size_limits.check(tree, where=str(path))\n',
    '',
    'tests/storage/test_size_limits.py',
  ),
  Guard(
    'mtnet_jax/storage/size_limits.py',
    '    or not low <= value <= high',
    '    or low > value or value > high',
    'tests/storage/test_size_limits.py',
  ),
  # DICOM.
  Guard(
    _PIXELS,
    '  if not 0 < rows * columns <= _MAX_PIXELS:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '  if frames != 1:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '  if samples != 1:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '  if bits not in _BITS:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '  if size != (rows, columns, 1):',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '    if not np.isfinite([slope, intercept]).all():',
    '    if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  Guard(
    _PIXELS,
    '  return _decode_apart(dataset, name)',
    '  dataset.pixel_array_options(decoding_plugin=name)\n'
    '  return dataset.pixel_array',
    'tests/dataset/ct/test_decoder.py',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '    signal.setitimer(signal.ITIMER_PROF, seconds)',
    '    pass',
    'tests/dataset/ct/test_decoder.py -k too_long',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '        except (EOFError, BrokenPipeError):',
    '        except ZeroDivisionError:',
    'tests/dataset/ct/test_decoder.py -k killed',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '    except BaseException:\n      # Interrupted',
    '    except ZeroDivisionError:\n      # Interrupted',
    'tests/dataset/ct/test_decoder.py -k interrupt',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '  os.register_at_fork(after_in_child=_forget_all)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k fork',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '  os.dup2(nowhere, 1)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k prints',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '  signal.signal(signal.SIGTERM, signal.SIG_IGN)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k stops',
  ),
  Guard(
    'tfds_lidc/ct/decoder.py',
    '    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])',
    '    pass',
    'tests/dataset/ct/test_decoder.py -k too_long',
  ),
  Guard(
    'tfds_lidc/ct/codestream.py',
    '    if length < 8:',
    '    if False:',
    'tests/dataset/ct/test_codestream.py',
  ),
  Guard(
    _HEADER,
    '  if _inflates_beyond_measure(f):',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py -k bomb',
  ),
  Guard(
    _HEADER,
    'size if size is None else min(size, self._size)',
    'size',
    'tests/dataset/ct/test_dicom_series.py -k length',
  ),
  Guard(
    _HEADER,
    '    if not stat.S_ISREG(status.st_mode):',
    '    if False:',
    'tests/dataset/ct/test_dicom_series.py -k pipe',
  ),
  Guard(
    _HEADER,
    '      if not math.isfinite(z_mm):',
    '      if False:',
    'tests/dataset/ct/test_dicom_series.py -k position',
  ),
  Guard(
    _GEOMETRY,
    '  if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-2:',
    '  if False:',
    'tests/ct/test_geometry.py',
  ),
  Guard(
    _GEOMETRY,
    '  if min(down, across) <= 0:',
    '  if False:',
    'tests/ct/test_geometry.py',
  ),
  # Tables, texts and terminals.
  Guard(
    'mtnet_jax/ct/points.py',
    '  if not _ID.fullmatch(name):',
    '  if False:',
    'tests/ct/test_points.py',
  ),
  Guard(
    'mtnet_jax/ct/points.py',
    '    if not math.isfinite(value):',
    '    if False:',
    'tests/ct/test_points.py',
  ),
  Guard(
    'mtnet_jax/system/errors.py',
    'c if c.isprintable() else unknown',
    'c',
    'tests/system/test_errors.py',
  ),
  Guard(
    'tfds_lidc/errors.py',
    'c if c.isprintable() else unknown',
    'c',
    'tests/system/test_errors.py',
  ),
  # Runs, bundles and weights.
  Guard(
    'mtnet_jax/system/errors.py',
    '    RecursionError,\n',
    '',
    'tests/evaluation/test_finished_run.py',
  ),
  Guard(
    'mtnet_jax/system/errors.py',
    '    AttributeError,\n',
    '',
    'tests/evaluation/test_finished_run.py tests/inference/test_bundles.py',
  ),
  Guard(
    'mtnet_jax/storage/workdir.py',
    '    if not isinstance(tree[key], dict):',
    '    if False:',
    'tests/storage/test_workdir.py',
  ),
  Guard(
    'mtnet_jax/inference/bundles.py',
    '  if path.exists() and not path.is_file():',
    '  if False:',
    'tests/inference/test_bundles.py -k pipe',
  ),
  Guard(
    'mtnet_jax/inference/bundles.py',
    '  if found != expected:',
    '  if False:',
    'tests/inference/test_bundles.py',
  ),
  Guard(
    'mtnet_jax/inference/remote.py',
    "'..' not in name.split('/') and ",
    '',
    'tests/inference/test_remote.py',
  ),
  Guard(
    _HDF5,
    '    if not isinstance(group.get(part, getlink=True), h5py.HardLink):',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  Guard(
    _HDF5,
    '    if dataset.external or dataset.is_virtual:',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  Guard(
    _HDF5,
    '  if sum(dataset.nbytes for dataset in found.values()) > MAX_BYTES:',
    '  if False:',
    'tests/weights/test_hdf5.py',
  ),
  Guard(
    _WEIGHTS,
    'weights_only=True, ',
    'weights_only=False, ',
    'tests/weights/test_load.py -k code',
  ),
  Guard(
    _WEIGHTS,
    '  if sum(sizes) > hdf5.MAX_BYTES:',
    '  if False:',
    'tests/weights/test_load.py -k claim',
  ),
  Guard(
    _WEIGHTS,
    '  hdf5.probe(path)\n',
    '',
    'tests/weights/test_hdf5.py',
  ),
)
