"""Compiled programs are kept where the user wants them."""

import os
import pathlib
import sys

import main_job
import pytest

from mtnet_jax.system import compilation_cache

# As in a container with an arbitrary user: no HOME, and no entry in the user
# database.
_NO_HOME = """
import os, pwd
os.environ.pop('HOME', None)
def nobody(uid):
  raise KeyError(uid)
pwd.getpwuid = nobody
"""
_COMPILE = """
import jax
from mtnet_jax.system import compilation_cache
compilation_cache.enable()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.jit(lambda x: x + 1)(1)
"""


@pytest.mark.parametrize(
  ('chosen', 'expected'),
  [(None, 'xdg/mtnet_jax/compiled'), ('mine', 'mine'), ('', None)],
)
def test_where_programs_are_kept(tmp_path, monkeypatch, chosen, expected):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  env = {'XDG_CACHE_HOME': str(tmp_path / 'xdg'), 'HOME': str(tmp_path)}
  if chosen is not None:
    env['JAX_COMPILATION_CACHE_DIR'] = str(tmp_path / chosen) if chosen else ''
  done = main_job.run([sys.executable, '-c', _COMPILE], **env)
  assert done.returncode == 0, done.stderr
  folders = {
    os.path.relpath(folder, tmp_path)
    for folder, _, files in os.walk(tmp_path)
    if any(name.startswith('jit') for name in files)
  }
  assert folders == ({expected} if expected else set())


@pytest.mark.parametrize(
  ('before', 'env'),
  (
    (_NO_HOME, {}),
    ('', {'XDG_CACHE_HOME': '/dev/null/x'}),
    ('', {'HOME': '/proc'}),
  ),
)
def test_without_a_folder_there_is_no_cache(monkeypatch, before, env):
  """The cache is optional: without it, nothing fails or warns."""
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  done = main_job.run([sys.executable, '-c', before + _COMPILE], **env)
  assert (done.returncode, done.stderr) == (0, '')


def test_a_folder_that_all_users_can_write_to_is_not_used(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  folder = compilation_cache.folder('native')
  assert folder == tmp_path / 'mtnet_jax' / 'native'
  folder.chmod(0o777)
  assert compilation_cache.folder('native') is None
  folder.chmod(0o770)
  assert compilation_cache.folder('native') == folder
  # Its parent, where others could replace it unless the parent is sticky.
  for mode, expected in ((0o777, None), (0o1777, folder)):
    tmp_path.chmod(mode)
    assert compilation_cache.folder('native') == expected
  # The folder belongs to another user, who is trusted only if it is root.
  owner = folder.stat().st_uid
  monkeypatch.setattr(os, 'getuid', lambda: owner + 1)
  expected = folder if owner == 0 else None
  assert compilation_cache.folder('native') == expected
  monkeypatch.setattr(
    pathlib.Path, 'stat', lambda path: os.stat_result((0o40700, *(7,) * 9))
  )
  monkeypatch.setattr(os, 'getuid', lambda: 8)
  assert not compilation_cache._is_ours(folder)
  monkeypatch.setattr(os, 'getuid', lambda: 7)
  assert compilation_cache._is_ours(folder)


_LOOPS = """
import jax.numpy as jnp
from mtnet_jax.ops.native import library
print(library._path('forward').parent)
"""


def test_without_a_folder_the_loops_are_built_in_a_temporary_one(
  tmp_path, monkeypatch
):
  """The folder belongs to this process and is removed at its end."""
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  done = main_job.run(
    [sys.executable, '-c', _NO_HOME + _LOOPS], TMPDIR=str(tmp_path)
  )
  assert done.returncode == 0, done.stderr
  folder = pathlib.Path(done.stdout.strip())
  assert folder.parent == tmp_path
  assert not list(tmp_path.iterdir())


_DATASETS = """
from mtnet_jax.data import lidc
from mtnet_jax.system import errors
for name in ('lidc_nodules/phantom', 'lidc_nodules/phantom?readers=3'):
  try:
    lidc.is_built(name, '')
  except errors.InputError as error:
    print(error)
  print(lidc.is_built(name, '/nowhere'))
"""


def test_without_a_home_datasets_need_a_data_dir(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  done = main_job.run([sys.executable, '-c', _NO_HOME + _DATASETS])
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[1::2] == ['False', 'False']
  assert all('there is no home folder' in line for line in lines[::2])
