"""Runs a C++ compiler that may hang, say anything, or write without end."""

import atexit
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

try:
  import resource
except ImportError:  # Windows has no such limits.
  resource = None

# Some hundred times what a group of loops takes.
_LIMIT_S = 300
# A library has 0.1 MB.
MAX_BYTES = 64 << 20
# Ended with this process, which may have begun them in a thread that it does
# not wait for.
_running = set()
_ending = threading.Event()


def command():
  """The compiler, `c++` or what CXX names, as a list."""
  return shlex.split(os.environ.get('CXX', '')) or ['c++']


def run(commands):
  """Runs commands at the same time, since one uses one core.

  No threads wait for them: a process that ends would wait for these.

  Args:
    commands: lists of words.

  Returns:
    What each one wrote to its standard output, as a list of text.

  Raises:
    OSError: one cannot be started.
    subprocess.SubprocessError: one failed, or took too long; then all are
      ended, with what they have started.
  """
  deadline = time.monotonic() + _LIMIT_S
  processes, outputs, errors = [], [], []
  try:
    for words in commands:
      outputs.append(output := _file())
      errors.append(error := _file())
      process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=error,
        # Its children are ended together with it.
        start_new_session=True,
      )
      _running.add(process)
      processes.append(process)
      _limit_files(process)
    for process, error in zip(processes, errors, strict=True):
      code = process.wait(max(0, deadline - time.monotonic()))
      if code:
        if _ending.is_set():  # This thread has nobody to tell it to.
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


def check(library, names):
  """Loads a library in a process of its own, which may crash.

  Args:
    library: its file.
    names: symbols that it must have.

  Raises:
    OSError, subprocess.SubprocessError: it cannot be loaded, or lacks one.
  """
  # Of an application that was frozen into one file, it is the application.
  if not sys.executable or getattr(sys, 'frozen', False):
    return
  code = (
    'import ctypes, sys\nlibrary = ctypes.CDLL(sys.argv[1])\n'
    'for name in sys.argv[2:]: getattr(library, name)'
  )
  run([[sys.executable, '-I', '-S', '-c', code, str(library), *names]])


def _file():
  """A file without a name: unlike a pipe, it has the limit below."""
  if hasattr(os, 'memfd_create'):  # Needs no disk, which may be full.
    return open(os.memfd_create('mtnet_jax'), 'w+b')
  return tempfile.TemporaryFile()


def _limit_files(process):
  if hasattr(resource, 'prlimit'):
    # A container may forbid it, and the process may have ended.
    with contextlib.suppress(OSError):
      _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
      limit = MAX_BYTES if hard < 0 else min(MAX_BYTES, hard)
      resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def _text(file):
  # A compiler answers in the letters of its locale, which this one's may lack.
  file.seek(0)
  return file.read().decode('utf-8', 'replace')


def _end(process):
  """Ends a process and what it has started."""
  _running.discard(process)
  _kill(process)
  process.wait()


def _kill(process):
  """Kills its group, where others of it may live when it has ended."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except (AttributeError, OSError):
    process.kill()


def _end_all():
  _ending.set()
  for process in list(_running):
    _kill(process)


atexit.register(_end_all)
