"""Handles SIGTERM, which clusters send before they end a process.

Threads with work that is not on disk yet save it first. If there are none, the
process ends immediately, even in the middle of a compilation. The same command
resumes the work later.
"""

import os
import signal
import socket
import sys
import threading
import time

# The exit code that a shell reports for a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM
# How long a thread without unsaved work may take to unwind.
_UNWIND_SECONDS = 3
_LINE = 'SIGTERM: stopped. The same command resumes {}.'
_LAST = 'from the last checkpoint'

_asked = threading.Event()
_listening = threading.Event()
# Identifiers of the threads with work that is not on disk yet.
_holding: set[int] = set()


class Stopped(SystemExit):
  """Ends the process cleanly, after SIGTERM."""

  def __init__(self):
    super().__init__(EXIT_CODE)


def listen() -> None:
  """Installs the handler of SIGTERM, once per process.

  Only the main thread can install it. In other threads this does nothing.
  """
  main = threading.current_thread() is threading.main_thread()
  if _listening.is_set() or not main:
    return
  _listening.set()
  # Python runs a handler only after C++ code, such as a compilation, returns.
  # The thread that reads from this socket does not wait for that.
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  signal.signal(signal.SIGTERM, _handle)
  signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def asked() -> bool:
  """Returns whether the process was asked to stop."""
  return _asked.is_set()


def check() -> None:
  """Raises `Stopped` if the process was asked to stop."""
  if _asked.is_set():
    raise Stopped


def hold() -> None:
  """Registers that this thread has work that is not on disk.

  The thread must call `check` regularly, and save its work when that raises.
  """
  _holding.add(threading.get_ident())


def holds() -> bool:
  """Returns whether this thread has work that is not on disk."""
  return threading.get_ident() in _holding


def release(where: str | None = None) -> None:
  """Registers that this thread has saved its work, or dropped it.

  Args:
    where: where the command would resume, such as 'at step 3'. It is printed if
      the process was asked to stop.
  """
  _holding.discard(threading.get_ident())
  if where and _asked.is_set():
    _say(where)


def _handle(*_):
  again = _asked.is_set()
  _asked.set()
  if not _holding and not again:
    _say(_LAST)
    raise Stopped


def _watch(reader):
  while signal.SIGTERM not in reader.recv(1):
    pass
  time.sleep(_UNWIND_SECONDS)
  while _holding:
    time.sleep(_UNWIND_SECONDS)
  if not _asked.is_set():
    _say(_LAST)
  # No file is damaged: files are renamed into place when they are complete.
  os._exit(EXIT_CODE)


def _say(where):
  print('\n' + _LINE.format(where), file=sys.stderr, flush=True)
