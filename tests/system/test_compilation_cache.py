"""Compiled programs go where the user wants them."""

import os
import sys

import main_job
import pytest

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
