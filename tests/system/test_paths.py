"""`~` is expanded in every flag, config field and argument that is a path."""

import argparse
import importlib
import json
import os
import re
import sys

from absl import flags
import main_job
import project_configs
import pytest

import mtnet_jax
from mtnet_jax import bundle
from mtnet_jax import main as main_command
from mtnet_jax import sweep as sweep_command
from mtnet_jax.storage import workdir
from mtnet_jax.system import command_line
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from tfds_lidc import build
from tfds_lidc import command_line as lidc_command_line
from tfds_lidc import errors as lidc_errors
from tfds_lidc import paths as lidc_paths
from tfds_lidc.lidc_nodules import building

# Text flags of all commands that are not paths. A new flag must be listed here,
# or have the type `command_line.path`.
_NO_PATHS = {
  '--annotated',
  '--config',
  '--dataset',
  '--format',
  '--leave_out',
  '--license',
  '--name',
  '--note',
  '--patients',
  '--policy',
  '--series',
  '--split',
  'beam_flags',
}


def _commands():
  """Yields the modules of both packages that use argparse."""
  for package in ('mtnet_jax', 'tfds_lidc'):
    for path in sorted((main_job.ROOT / package).rglob('*.py')):
      if re.search(
        r'= command_line\.parser\(', path.read_text(encoding='utf-8')
      ):
        name = path.relative_to(main_job.ROOT).with_suffix('')
        yield '.'.join(name.parts)


class _ParserError(Exception):
  """Carries the parser of a command; raised before anything is parsed."""


def _parser_of(module, monkeypatch):
  def stop(parser, *_):
    raise _ParserError(parser)

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
  with pytest.raises(_ParserError) as caught:
    importlib.import_module(module).main()
  return caught.value.args[0]


def test_every_command_is_found():
  assert {
    'mtnet_jax.bundle',
    'mtnet_jax.predict',
    'tfds_lidc.build',
    'tfds_lidc.cohort',
    'tfds_lidc.phantom.series',
    'tfds_lidc.tools.make_nodules',
  } <= set(_commands())


@pytest.mark.parametrize('module', sorted(_commands()))
def test_every_flag_that_is_a_path_has_its_type(module, monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  parser = _parser_of(module, monkeypatch)
  for action in parser._actions:
    name = action.option_strings[-1] if action.option_strings else action.dest
    if action.nargs == 0 or action.type is int or name in _NO_PATHS:
      continue
    assert action.type is not None, f'{module} {name}'
    # argparse converts each item of a list like this.
    assert parser._get_value(action, '~/x') == '/home/me/x', name
    assert parser._get_value(action, 'gs://b/~/x') == 'gs://b/~/x', name


@pytest.mark.parametrize('command', (main_command, sweep_command))
def test_commands_with_absl_flags_have_no_other_paths(command):
  values = flags.FlagValues()
  command.define_flags(values)
  text = {name for name in values if values[name].flag_type() != 'int'}
  # `run` expands --workdir, and `config_command` --config.
  assert text <= {'config', 'workdir', 'coordinator'}


def test_config_fields_that_are_paths_are_listed():
  """Each path is expanded where it is used; a new one must be, too."""
  tree = json.loads(project_configs.CONFIGS.get_config().to_json())

  def text_fields(tree, before=''):
    for key, value in tree.items():
      if isinstance(value, dict):
        yield from text_fields(value, f'{before}{key}.')
      elif isinstance(value, str):
        yield before + key

  assert {
    name
    for name in text_fields(tree)
    if not name.endswith(('sha256', 'schedule'))
  } == {
    # Paths.
    'dataset.data_dir',
    'start_from',
    'pretrained.segmentation',
    'pretrained.classification',
    # Other text.
    'coarse_mask',
    'dataset.fallback',
    'dataset.fingerprint',
    'dataset.name',
    'dtype',
    'matmul_precision',
    'start_from_dataset',
    'strategy',
    'variant',
  }


def test_a_run_resumes_with_its_folders_written_in_another_way(
  monkeypatch, tmp_path
):
  monkeypatch.setenv('HOME', '/home/me')
  config = project_configs.CONFIGS.get_config('test')

  def claim(data_dir):
    with config.unlocked():
      config.dataset.data_dir = data_dir
    workdir.claim(tmp_path, config)

  claim('~/sets')
  claim('/home/me/sets')
  stored = json.loads((tmp_path / 'config.json').read_text())
  assert stored['dataset']['data_dir'] == '~/sets'
  with pytest.raises(errors.InputError, match='data_dir was ~/sets and is now'):
    claim('/home/you/sets')


@pytest.mark.parametrize(
  ('expand', 'error'),
  (
    (paths.expand, errors.InputError),
    (lidc_paths.expand, lidc_errors.InputError),
    (command_line.path, argparse.ArgumentTypeError),
    (lidc_command_line.path, argparse.ArgumentTypeError),
  ),
)
def test_a_home_folder_that_does_not_exist_is_an_error(
  expand, error, monkeypatch
):
  monkeypatch.setenv('HOME', '/home/me')
  assert expand('~') == '/home/me'
  assert expand('a/~/b') == 'a/~/b'
  assert expand('') == ''
  with pytest.raises(error, match='no home folder for ~nobody_so_called/x'):
    expand('~nobody_so_called/x')


def test_a_run_is_found_with_every_path_written_with_a_tilde(
  finished_run, phantom_data_dir, compiled
):
  """The run was trained with full paths."""
  run, _ = finished_run
  home = phantom_data_dir.parent
  assert home in run.parents
  root = os.path.relpath(main_job.ROOT, home)
  command = [
    part.replace(f'={main_job.ROOT}', f'=~/{root}').replace(f'={home}', '=~')
    for part in main_job.small_job(run, phantom_data_dir)
  ]
  assert sum('=~/' in part for part in command) == 3
  done = main_job.run(command, HOME=f'{home}', **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert f'{run} is finished' in done.stdout
  assert not (main_job.ROOT / '~').exists()


def test_commands_expand_the_home_folder(made_run_dir, monkeypatch, tmp_path):
  home = tmp_path / 'home'
  home.mkdir()
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.chdir(tmp_path)
  (home / 'run').symlink_to(made_run_dir)
  _call(monkeypatch, bundle, '--run=~/run', '--out=~/packed')
  assert (home / 'packed' / 'README.md').exists()
  assert mtnet_jax.load('~/packed').name == 'made'
  few = ('--config=phantom', '--policy=readers=4,size=27-30')
  _call(monkeypatch, build, *few, '--data_dir=~/sets')
  assert building.is_built('phantom', policy=few[1][9:], data_dir=home / 'sets')
  assert not (tmp_path / '~').exists()


def _call(monkeypatch, command, *flags):
  monkeypatch.setattr(sys, 'argv', ['command', *flags])
  command.main()
