"""Guards of folders that are replaced as a whole; see `guards`."""

from faults import guard


def _swap(text, without):
  return guard.Guard(
    'tfds_lidc/folder_swap/swap.py',
    text,
    without,
    'tests/storage/test_folder_swap.py',
  )


def _staged(text, without):
  return guard.Guard(
    'tfds_lidc/folder_swap/staged.py',
    text,
    without,
    'tests/storage/test_folder_swap.py',
  )


GUARDS = (
  _swap(
    '    finally:\n      _keep_one(target, old, trash)',
    '    finally:\n      pass',
  ),
  _swap('    os.rename(old, target)\n    return True', '    return True'),
  _swap(
    '    if os.path.lexists(target) or not os.path.lexists(old):\n'
    '      return False\n',
    '',
  ),
  _swap('  remove_leftovers(target.parent, target.name)\n', ''),
  _swap('pathlib.Path(os.path.realpath(target))', 'pathlib.Path(target)'),
  _swap('    if os.path.lexists(old):\n      raise', '    if 0:\n      raise'),
  _staged('  if locks.take(lock):\n    return lock', '  return lock'),
  _staged(
    r"NAME = re.compile(r'\..+\.mtnet_jax-[0-9a-f]{16}')",
    r"NAME = re.compile(r'\..+\.\w+')",
  ),
  _staged('    if stat.S_ISDIR(found.st_mode):', '    if path.is_dir():'),
  _staged('  if len(os.fsencode(name)) > _MAX_BYTES:', '  if False:'),
  guard.Guard(
    'tfds_lidc/folder_swap/locks.py',
    '      raise TimeoutError(',
    '      break\n      raise TimeoutError(',
    'tests/storage/test_folder_swap.py -k stranger',
  ),
  guard.Guard(
    'tfds_lidc/folder_swap/locks.py',
    '    _wait(acquire, folder)\n',
    '    pass\n',
    'tests/storage/test_folder_swap.py -k nfs',
  ),
  _swap(
    '    and not staged.is_shortened(name)\n',
    '',
  ),
  _swap(
    "    and name not in ('', '.', '..')\n",
    '',
  ),
  _swap('    and path.is_dir()\n', ''),
  _swap('    and not path.is_symlink()\n', ''),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    '    swap.remove_leftovers(path.parent, path.name)\n',
    '',
    'tests/storage/test_files.py -k left_beside',
  ),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    '    if path.is_dir() and path.samefile(pathlib.Path.cwd()):',
    '    if False:',
    'tests/storage/test_files.py -k working_directory',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/staging.py',
    '  if os.path.islink(builder.data_path):',
    '  if False:',
    'tests/dataset/test_build_replaced.py -k another_disk',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/staging.py',
    '      shutil.copyfile(path, note)\n'
    '      os.replace(note, data_dir / notes / path.name)',
    '      os.replace(path, data_dir / notes / path.name)',
    'tests/dataset/test_build_replaced.py -k another_disk',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/lidc_nodules_dataset_builder.py',
    '    staging.check_not_stranded(self.data_path)\n',
    '',
    'tests/dataset/test_build_replaced.py',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    "  staging.mend(data_dir, name.partition('/')[0])\n",
    '',
    'tests/dataset/test_build_replaced.py -k files_only',
  ),
)
