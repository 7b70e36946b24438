"""Guards of caches, datasets and folders that several users share."""

from faults import guard

_NATIVE = 'mtnet_jax/ops/native/library.py'
_BUILDER = 'tfds_lidc/lidc_nodules/lidc_nodules_dataset_builder.py'
_LOCKS = 'tfds_lidc/folder_swap/lock_file.py'

GUARDS = (
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
    '      if not to_replace:\n        raise damage.damaged(self, e) from e',
    '      raise damage.damaged(self, e) from e',
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
    'tests/ops/test_native_cache.py -k children',
  ),
  guard.Guard(
    'mtnet_jax/ops/native/compiler.py',
    '  _kill(process)\n  process.wait()',
    '  if process.poll() is None:\n    _kill(process)\n    process.wait()',
    'tests/ops/test_native_cache.py -k children',
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
    'mtnet_jax/system/compilation_cache.py',
    ' and _stays_in_place(path)',
    '',
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
    '      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n',
    '',
    'tests/storage/test_together.py -k second_writer',
  ),
  guard.Guard(
    _LOCKS,
    '      if e.errno in _NO_LOCKS:',
    '      if False:',
    'tests/storage/test_run_lock.py -k reported',
  ),
  guard.Guard(
    _LOCKS,
    'if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:',
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
)
