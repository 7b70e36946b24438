"""One process at a time in a folder, on all machines that share it."""

import contextlib

from mtnet_jax.system import errors


@contextlib.contextmanager
def exclusive(path, flag):
  """Keeps other processes out of the folder of a file while the block runs.

  The operating system drops the lock when the process ends in any way. The file
  is neither followed where it is a link, nor emptied where it is somebody's,
  and goes afterwards. Where the file system has no locks, a line says so.

  Args:
    path: `pathlib.Path` of the file, in an existing folder.
    flag: by which another folder can be chosen.

  Raises:
    errors.BusyError: another process has it.
    errors.InputError: it cannot be locked.
  """
  from tfds_lidc.folder_swap import lock_file

  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock_file.held(path))
    except BlockingIOError as error:
      who = errors.one_line(error.strerror)
      who = f' ({who})' if who else ''
      raise errors.BusyError(
        f'another process that still runs has {path.parent}{who}: wait for it,'
        f' or choose another {flag}.'
      ) from error
    except OSError as error:
      raise errors.InputError(
        f'{path.parent} cannot be locked ({path.name}: {error.strerror}):'
        f' choose another {flag}.'
      ) from error
    yield
