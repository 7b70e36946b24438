"""Runs a C++ compiler, with limits on its time and on what it writes.

The compiler is a command of the user's choice: it may hang, fail, print in any
encoding, or write without end.
"""

import atexit
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

try:
  import resource
except ImportError:  # Windows has no such limits.
  resource = None  # type: ignore[assignment]  # a module is expected

# About a hundred times as long as a group of loops takes.
_LIMIT_S = 300
# Upper bound of a file that a compiler writes. A library has 0.1 MB.
MAX_BYTES = 64 << 20
# Processes to kill when this process exits. The background thread of
# `library.build_ahead` may have started them, and nothing waits for it.
_running: set[subprocess.Popen[bytes]] = set()
_ending = threading.Event()


def command() -> list[str]:
  """Returns the words of the compiler's command: CXX, or `c++`."""
  return shlex.split(os.environ.get('CXX', '')) or ['c++']


def run(commands: Iterable[Sequence[str]]) -> list[str]:
  """Runs commands at the same time, because each uses one core only.

  This needs no threads, for which a process would wait before it exits.

  Args:
    commands: the words of each command.

  Returns:
    The standard output of each command.

  Raises:
    OSError: a command cannot be started.
    subprocess.SubprocessError: a command failed or took too long. All commands
      and their child processes are killed then.
  """
  deadline = time.monotonic() + _LIMIT_S
  processes: list[subprocess.Popen[bytes]] = []
  outputs: list[IO[bytes]] = []
  errors: list[IO[bytes]] = []
  try:
    for words in commands:
      outputs.append(output := _file())
      errors.append(error := _file())
      process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=error,
        # A process group of its own, to kill it together with its children.
        start_new_session=True,
      )
      _running.add(process)
      processes.append(process)
      _limit_files(process)
    for process, error in zip(processes, errors, strict=True):
      code = process.wait(max(0, deadline - time.monotonic()))
      if code:
        if _ending.is_set():
          # `_end_all` has killed the compiler. Blocks this background thread,
          # which would report a failure while the process exits.
          threading.Event().wait()
        raise subprocess.CalledProcessError(
          code, process.args, stderr=_text(error)
        )
    return [_text(output) for output in outputs]
  finally:
    for process in processes:
      _end(process)
    for file in outputs + errors:
      file.close()


def check(library: str | os.PathLike[str], names: Iterable[str]) -> None:
  """Checks in another process that a library can be loaded.

  A bad library can crash the process that loads it.

  Args:
    library: path of the library.
    names: symbols that it must define.

  Raises:
    OSError: the process cannot be started.
    subprocess.SubprocessError: the library cannot be loaded, or a symbol is
      missing.
  """
  # In an application that was frozen into one file, `sys.executable` is that
  # application, not Python.
  if not sys.executable or getattr(sys, 'frozen', False):
    return
  code = (
    'import ctypes, sys\nlibrary = ctypes.CDLL(sys.argv[1])\n'
    'for name in sys.argv[2:]: getattr(library, name)'
  )
  run([[sys.executable, '-I', '-S', '-c', code, str(library), *names]])


def _file():
  """Opens a file without a name; unlike a pipe, its size can be limited."""
  if hasattr(os, 'memfd_create'):  # In memory, because the disk may be full.
    return open(os.memfd_create('mtnet_jax'), 'w+b')
  return tempfile.TemporaryFile()


def _limit_files(process):
  if hasattr(resource, 'prlimit'):
    # Containers may forbid limits, and the process may have ended already.
    with contextlib.suppress(OSError):
      _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
      limit = MAX_BYTES if hard < 0 else min(MAX_BYTES, hard)
      resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def _text(file):
  # A compiler may print in another encoding than this process expects.
  file.seek(0)
  return file.read().decode('utf-8', 'replace')


def _end(process):
  """Kills a process and its children."""
  _running.discard(process)
  _kill(process)
  process.wait()


def _kill(process):
  """Kills a process group, whose other members may outlive the process."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except (AttributeError, OSError):
    process.kill()


def _end_all():
  _ending.set()
  for process in list(_running):
    _kill(process)


atexit.register(_end_all)
