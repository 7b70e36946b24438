"""A bad library or compiler never ends the process."""

import os
import shutil
import subprocess
import sys
import time

import main_job
import pytest

from mtnet_jax.ops.native import compiler
from mtnet_jax.ops.native import library

_needs_compiler = pytest.mark.skipif(
  not shutil.which(os.environ.get('CXX', 'c++')), reason='no C++ compiler'
)


@pytest.fixture
def caches(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
  return tmp_path / 'caches' / 'mtnet_jax' / 'native'


@pytest.fixture
def cxx(tmp_path, monkeypatch):
  """Makes a shell script the compiler; its output file is $last."""

  def write(*lines):
    script = tmp_path / 'cxx'
    script.write_text(
      '\n'.join(('#!/bin/sh', 'for last; do :; done', *lines, ''))
    )
    script.chmod(0o755)
    monkeypatch.setenv('CXX', str(script))

  return write


@pytest.fixture
def copying(request, cxx):
  """A compiler that copies a library which was built before."""
  built = library._path('forward')
  cxx(f'case "$last" in *.so) cp {built} "$last";; *.o) : > "$last";; esac')
  request.getfixturevalue('caches')
  return built


def _failure_message(capsys):
  """Fails to load the loops of `forward`, and returns the printed reason."""
  assert library._load.__wrapped__('forward') is False
  message = capsys.readouterr().err
  assert message.count('no C++ loops (forward)') == 1
  assert 'MTNET_JAX_NATIVE=0' in message
  return message


def _truncate(path):
  os.truncate(path, 5000)


def _empty(path):
  os.truncate(path, 0)


def _flip_a_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _folder(path):
  path.unlink()
  (path / 'x').mkdir(parents=True)


def _pipe(path):
  path.unlink()
  os.mkfifo(path)


@_needs_compiler
@pytest.mark.parametrize(
  'damage', (_truncate, _empty, _flip_a_bit, _folder, _pipe)
)
def test_a_damaged_library_is_built_again(copying, caches, capsys, damage):
  path = library._path('forward')
  whole = path.read_bytes()
  assert whole == copying.read_bytes()
  capsys.readouterr()
  damage(path)
  assert library._path('forward') == path
  assert path.read_bytes() == whole
  assert f'{path} is damaged' in capsys.readouterr().err
  assert [*caches.iterdir()] == [path]
  # The second time, the library is whole and nothing is printed.
  assert library._path('forward') == path
  assert capsys.readouterr().err == ''


_LOADS = """
from mtnet_jax.ops.native import library
print(library._has('forward'))
"""


@_needs_compiler
def test_a_process_survives_a_truncated_library(copying):
  path = library._path('forward')
  _truncate(path)
  done = main_job.run([sys.executable, '-c', _LOADS])
  assert (done.returncode, done.stdout) == (0, 'True\n'), done.stderr
  assert path.read_bytes() == copying.read_bytes()


@pytest.mark.parametrize(
  ('line', 'message'),
  (
    ('echo no room on 12\\" paper >&2; exit 3', 'no room'),
    ("printf 'Biblioth\\350que \\377' >&2; exit 1", 'Biblioth'),
    # It reports success.
    ('exit 0', 'cannot open shared object file'),
    ('kill -SEGV $$', 'SIGSEGV'),
    # The output is finite, so that the test ends even without the limit.
    ('exec head -c 100M /dev/zero', 'SIGXFSZ'),
    (
      '[ "$last" = /dev/null ] || exec head -c 100M /dev/zero > "$last"',
      'SIGXFSZ',
    ),
  ),
)
def test_a_compiler_that_does_not_compile(
  cxx, caches, capsys, monkeypatch, line, message
):
  monkeypatch.setattr(compiler, 'MAX_BYTES', 1 << 16)
  cxx(line)
  assert message in _failure_message(capsys)
  assert not caches.exists() or not [*caches.iterdir()]


@pytest.mark.parametrize(
  ('command', 'message'),
  (
    ('"c++', 'No closing quotation'),
    ('no-such-compiler', 'no-such-compiler'),
    ('/', 'Permission denied'),
  ),
)
def test_an_invalid_command(caches, capsys, monkeypatch, command, message):
  monkeypatch.setenv('CXX', command)
  assert message in _failure_message(capsys)


def test_a_blank_cxx_counts_as_unset(monkeypatch):
  monkeypatch.setenv('CXX', ' ')
  assert compiler.command() == ['c++']


def test_output_in_any_encoding_is_read(cxx):
  cxx("printf 'caf\\351'")
  assert compiler.run([compiler.command()]) == ['caf\N{REPLACEMENT CHARACTER}']


@pytest.mark.parametrize(
  ('line', 'message'), (('wait', 'timed out'), ('exit 3', 'exit status 3'))
)
def test_a_compiler_is_killed_with_its_children(
  cxx, tmp_path, monkeypatch, caches, capsys, line, message
):
  """One compiler hangs, and the other one exits before its child."""
  child = tmp_path / 'child'
  monkeypatch.setattr(compiler, '_LIMIT_S', 20)
  cxx(f'sleep 600 & echo $! > {child}', line)
  assert message in _failure_message(capsys)
  state = f'/proc/{child.read_text().strip()}/stat'
  deadline = time.monotonic() + 60
  while os.path.exists(state):
    with open(state) as file:
      if file.read().rpartition(')')[2].split()[0] == 'Z':
        break
    assert time.monotonic() < deadline
    time.sleep(0.1)


def test_a_compiler_runs_where_limits_are_forbidden(cxx, monkeypatch):
  def forbidden(*_):
    raise PermissionError(1, 'Operation not permitted')

  monkeypatch.setattr(compiler.resource, 'prlimit', forbidden)
  cxx('echo text')
  assert compiler.run([compiler.command()]) == ['text\n']


@_needs_compiler
def test_a_library_without_a_loop_is_not_kept(tmp_path, cxx, caches, capsys):
  other = tmp_path / 'other.so'
  source = tmp_path / 'other.cc'
  source.write_text('int nothing;')
  c = os.environ.get('CXX', 'c++')
  subprocess.run(
    [c, '-shared', '-fPIC', str(source), '-o', str(other)], check=True
  )
  cxx(f'case "$last" in *.so) cp {other} "$last";; *.o) : > "$last";; esac')
  assert 'undefined symbol: mtnet_conv3x3' in _failure_message(capsys)
  assert not [*caches.iterdir()]


@_needs_compiler
@pytest.mark.parametrize('error', (AttributeError, OSError, MemoryError))
def test_jax_s_forms_are_used_after_any_failure_to_load(
  copying, capsys, monkeypatch, error
):
  def fail(path):
    raise error

  monkeypatch.setattr(library.ctypes, 'CDLL', fail)
  assert error.__name__ in _failure_message(capsys)
