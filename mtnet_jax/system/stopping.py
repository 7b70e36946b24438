"""Handles SIGTERM, which a machine sends before it is taken away.

A thread whose work is not on disk yet saves it first. Where there is none, the
process ends at once, even in the middle of a compilation. The same command
continues later.
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
_LINE = 'SIGTERM: stopped. The same command goes on {}.'
_LAST = 'from the last checkpoint'

_asked = threading.Event()
_listening = threading.Event()
# Threads whose work is not on disk yet.
_holding = set()


class Stopped(SystemExit):
  """Ends the process cleanly, after SIGTERM."""

  def __init__(self):
    super().__init__(EXIT_CODE)


def listen():
  """Lets SIGTERM end this process cleanly, once for all commands that it runs.

  Only the main thread can; in any other one this does nothing.
  """
  main = threading.current_thread() is threading.main_thread()
  if _listening.is_set() or not main:
    return
  _listening.set()
  # A handler in Python runs only after the C++ code that is running, such as a
  # compilation. A thread that reads from this socket does not wait for it.
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  signal.signal(signal.SIGTERM, _handle)
  signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def asked():
  """Whether the process was asked to stop."""
  return _asked.is_set()


def check():
  """Raises `Stopped` if the process was asked to stop."""
  if _asked.is_set():
    raise Stopped


def hold():
  """Says that this thread has work that is not on disk.

  The thread calls `check` regularly, and saves its work when that raises.
  """
  _holding.add(threading.get_ident())


def holds():
  """Whether this thread has work that is not on disk."""
  return threading.get_ident() in _holding


def release(where=None):
  """Says that this thread has saved its work, or dropped it.

  Args:
    where: from where the command would continue, for the person who stopped it.
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
  # Files are renamed into place when they are complete: nothing is lost.
  os._exit(EXIT_CODE)


def _say(where):
  print('\n' + _LINE.format(where), file=sys.stderr, flush=True)
