"""Allows one build of a config at a time, across machines with one folder."""

from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
import time

from tfds_lidc import errors
from tfds_lidc.folder_swap import lock_file

_MAX_WAIT_S = 6 * 3600.0
_POLL_S = 0.5


@contextlib.contextmanager
def exclusive(
  data_dir: pathlib.Path, config: str, *, max_wait_s: float | None = None
) -> Iterator[None]:
  """Holds the lock of a config's build; waits for another build of it.

  Two builds at once would delete each other's stored scans. The lock is a
  hidden file in the data directory, so that it works for all machines that
  build there. It is removed when the build ends.

  Args:
    data_dir: folder of all datasets; exists.
    config: name of the config.
    max_wait_s: how long to wait for another build; None for six hours.

  Yields:
    Nothing; the lock is held.

  Raises:
    InputError: the other build takes longer, or the lock file is unusable.
  """
  path = _path(data_dir, config)
  deadline = time.monotonic() + (
    _MAX_WAIT_S if max_wait_s is None else max_wait_s
  )
  is_first_try = True
  try:
    while (descriptor := lock_file.acquire(path)) is None:
      holder = errors.one_line(lock_file.holder(path)) or 'process unknown'
      if time.monotonic() > deadline:
        raise errors.InputError(
          f'another process still builds {config} in {data_dir} ({holder}): '
          'wait until it ends, or stop it, or choose another --data_dir'
        )
      if is_first_try:
        print(
          f'Another process builds {config} in {data_dir} ({holder}): waiting '
          'for it.',
          flush=True,
        )
        is_first_try = False
      time.sleep(_POLL_S)
  except OSError as e:
    raise errors.InputError(
      f'{path} cannot be used as the lock of a build ({e.strerror}): if no '
      'build runs there, remove it, or choose another --data_dir'
    ) from e
  try:
    yield
  finally:
    lock_file.release(descriptor, path)


def _path(data_dir: pathlib.Path, config: str) -> pathlib.Path:
  # A digest, since the name of a config may be as long as a file name can be.
  digest = hashlib.sha256(os.fsencode(config)).hexdigest()[:16]
  return data_dir / f'.lidc_nodules-{digest}.lock'
