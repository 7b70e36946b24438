"""A library or a compiler that is no good never ends a process."""

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
  """Makes a shell script, whose $last is the output, the compiler."""

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
  """A compiler that hands on a library which was built before."""
  built = library._path('forward')
  cxx(f'case "$last" in *.so) cp {built} "$last";; *.o) : > "$last";; esac')
  request.getfixturevalue('caches')
  return built


def _says(capsys):
  """What is said where the loops of `forward` cannot be had."""
  assert library._load.__wrapped__('forward') is False
  lines = capsys.readouterr().err
  assert lines.count('no C++ loops (forward)') == 1
  assert 'MTNET_JAX_NATIVE=0' in lines
  return lines


def _cut(path):
  os.truncate(path, 5000)


def _empty(path):
  os.truncate(path, 0)


def _turn_a_bit(path):
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
@pytest.mark.parametrize('harm', (_cut, _empty, _turn_a_bit, _folder, _pipe))
def test_a_damaged_library_is_built_anew(copying, caches, capsys, harm):
  path = library._path('forward')
  whole = path.read_bytes()
  assert whole == copying.read_bytes()
  capsys.readouterr()
  harm(path)
  assert library._path('forward') == path
  assert path.read_bytes() == whole
  assert f'{path} is damaged' in capsys.readouterr().err
  assert [*caches.iterdir()] == [path]
  # Once: the next one has nothing to say.
  assert library._path('forward') == path
  assert capsys.readouterr().err == ''


_LOADS = """
from mtnet_jax.ops.native import library
print(library._has('forward'))
"""


@_needs_compiler
def test_a_process_outlives_a_library_that_was_cut(copying):
  path = library._path('forward')
  _cut(path)
  done = main_job.run([sys.executable, '-c', _LOADS])
  assert (done.returncode, done.stdout) == (0, 'True\n'), done.stderr
  assert path.read_bytes() == copying.read_bytes()


@pytest.mark.parametrize(
  ('line', 'says'),
  (
    ('echo no room on 12\\" paper >&2; exit 3', 'no room'),
    ("printf 'Biblioth\\350que \\377' >&2; exit 1", 'Biblioth'),
    # It has ended well, it says.
    ('exit 0', 'cannot open shared object file'),
    ('kill -SEGV $$', 'SIGSEGV'),
    # Not without end, for whoever runs this without the limit.
    ('exec head -c 100M /dev/zero', 'SIGXFSZ'),
    (
      '[ "$last" = /dev/null ] || exec head -c 100M /dev/zero > "$last"',
      'SIGXFSZ',
    ),
  ),
)
def test_a_compiler_that_does_not_compile(
  cxx, caches, capsys, monkeypatch, line, says
):
  monkeypatch.setattr(compiler, 'MAX_BYTES', 1 << 16)
  cxx(line)
  assert says in _says(capsys)
  assert not caches.exists() or not [*caches.iterdir()]


@pytest.mark.parametrize(
  ('command', 'says'),
  (
    ('"c++', 'No closing quotation'),
    ('no-such-compiler', 'no-such-compiler'),
    ('/', 'Permission denied'),
  ),
)
def test_a_command_that_is_none(caches, capsys, monkeypatch, command, says):
  monkeypatch.setenv('CXX', command)
  assert says in _says(capsys)


def test_an_empty_name_is_none(monkeypatch):
  monkeypatch.setenv('CXX', ' ')
  assert compiler.command() == ['c++']


def test_answers_of_any_letters_are_read(cxx):
  cxx("printf 'caf\\351'")
  assert compiler.run([compiler.command()]) == ['caf\N{REPLACEMENT CHARACTER}']


@pytest.mark.parametrize(
  ('line', 'says'), (('wait', 'timed out'), ('exit 3', 'exit status 3'))
)
def test_a_compiler_is_ended_with_its_children(
  cxx, tmp_path, monkeypatch, caches, capsys, line, says
):
  """Where it hangs, and where it ends before them."""
  child = tmp_path / 'child'
  monkeypatch.setattr(compiler, '_LIMIT_S', 20)
  cxx(f'sleep 600 & echo $! > {child}', line)
  assert says in _says(capsys)
  state = f'/proc/{child.read_text().strip()}/stat'
  deadline = time.monotonic() + 60
  while os.path.exists(state):
    with open(state) as file:
      if file.read().rpartition(')')[2].split()[0] == 'Z':
        break
    assert time.monotonic() < deadline
    time.sleep(0.1)


def test_it_goes_on_where_limits_are_forbidden(cxx, monkeypatch):
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
  assert 'undefined symbol: mtnet_conv3x3' in _says(capsys)
  assert not [*caches.iterdir()]


@_needs_compiler
@pytest.mark.parametrize('error', (AttributeError, OSError, MemoryError))
def test_any_failure_to_load_leaves_jax_s_forms(
  copying, capsys, monkeypatch, error
):
  def fail(path):
    raise error

  monkeypatch.setattr(library.ctypes, 'CDLL', fail)
  assert error.__name__ in _says(capsys)
