"""SIGTERM ends a process cleanly, regardless of what it is doing."""

import signal
import subprocess
import sys
import time

import main_job
import pytest

_LAST = 'SIGTERM: stopped. The same command resumes from the last checkpoint.'

# The first lines of every program below.
_BEGIN = """
import hashlib, sys, time
from mtnet_jax.system import stopping
stopping.listen()
def ready():
  print('ready', flush=True)
def in_c():
  # Like a compilation, this does not return to the interpreter, which could
  # run a handler.
  hashlib.pbkdf2_hmac('sha256', b'x', b'x', 2_000_000_000)
"""
_PLAIN = """
try:
  ready()
  time.sleep(60)
finally:
  print('unwound', flush=True)
"""
_IN_C = """
ready()
in_c()
"""
_HOLDING = """
stopping.hold()
try:
  ready()
  until = time.monotonic() + 5
  # Longer than a thread without unsaved work may take.
  while time.monotonic() < until:
    time.sleep(0.1)
  stopping.check()
except stopping.Stopped:
  print('saved', flush=True)
  stopping.release('at step 3')
  raise
"""
_SAVED_AND_STUCK = _HOLDING.replace('raise', 'in_c()')
_NEVER_ASKED = """
ready()
stopping.hold()
stopping.check()
stopping.release('at step 3')
"""


def _stop(program):
  """Returns the exit code, both outputs after 'ready', and the seconds."""
  process = subprocess.Popen(
    [sys.executable, '-c', _BEGIN + program],
    env=main_job.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  started = time.monotonic()
  process.send_signal(signal.SIGTERM)
  output, error = process.communicate(timeout=60)
  return process.returncode, output, error, time.monotonic() - started


@pytest.mark.parametrize(
  'program, expected_output, line, max_seconds',
  [
    (_PLAIN, 'unwound\n', _LAST, 2),
    (_IN_C, '', _LAST, 10),
    (
      _HOLDING,
      'saved\n',
      _LAST.replace('from the last checkpoint', 'at step 3'),
      20,
    ),
    (
      _SAVED_AND_STUCK,
      'saved\n',
      _LAST.replace('from the last checkpoint', 'at step 3'),
      20,
    ),
  ],
  ids=['plain', 'in C', 'holding', 'saved and stuck'],
)
def test_sigterm_ends_a_process(program, expected_output, line, max_seconds):
  code, output, error, seconds = _stop(program)
  assert code == 128 + 15
  assert output == expected_output
  assert error.strip() == line
  assert seconds < max_seconds


def test_without_sigterm_nothing_happens():
  done = main_job.run([sys.executable, '-c', _BEGIN + _NEVER_ASKED])
  assert (done.returncode, done.stderr) == (0, '')
