"""Locks a folder for one process, on all machines that share it."""

from collections.abc import Iterator
import contextlib
import pathlib

from mtnet_jax.system import errors


@contextlib.contextmanager
def exclusive(path: pathlib.Path, flag: str) -> Iterator[None]:
  """Keeps other processes out of a lock file's folder while the block runs.

  The operating system releases the lock when the process ends in any way. A
  link at `path` is not followed, a file of somebody else there is not emptied,
  and the lock file is removed afterwards. If the file system has no locks, a
  note is printed and the block runs without one.

  Args:
    path: the lock file, in an existing folder.
    flag: the flag that chooses another folder, for messages.

  Raises:
    errors.BusyError: another process holds the lock.
    errors.InputError: the folder cannot be locked.
  """
  from tfds_lidc.folder_swap import lock_file

  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock_file.held(path))
    except BlockingIOError as error:
      who = errors.one_line(error.strerror)
      who = f' ({who})' if who else ''
      raise errors.BusyError(
        f'another process that still runs uses {path.parent}{who}: wait for it,'
        f' or choose another {flag}.'
      ) from error
    except OSError as error:
      raise errors.InputError(
        f'{path.parent} cannot be locked ({path.name}: {error.strerror}):'
        f' choose another {flag}.'
      ) from error
    yield
