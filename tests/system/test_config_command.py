"""A command with --config changes nothing in its process, as in notebooks."""

import json
import re
import sys

import main_job
import pytest

from mtnet_jax.system import config_command

# Does what `%run -m` does; standard output is not a file.
_NOTEBOOK = """
import contextlib, io, json, runpy, sys
import mtnet_jax.main
import mtnet_jax.sweep

codes = []
for name, *flags in json.loads(sys.argv[1]):
  sys.argv = [name, *flags]
  with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
      runpy.run_module(f'mtnet_jax.{name}', run_name='__main__')
    except SystemExit as ended:
      codes.append([ended.code, len(out.getvalue()) > 0])
print(json.dumps(codes))
"""


def _run(*commands):
  done = main_job.run([sys.executable, '-c', _NOTEBOOK, json.dumps(commands)])
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout), done.stderr.splitlines()


def test_commands_follow_each_other_in_one_process(tmp_path):
  """Each has its own --config, --config.FIELD and --workdir."""
  test = '--config=configs/mtnet.py:test'
  wrong = '--config.dataset.name=elsewhere/{}'
  workdir = f'--workdir={tmp_path}/{{}}'.format
  codes, lines = _run(
    ('main', test, '--config.seed=1', wrong.format('one'), workdir('a')),
    ('main', test, '--config.seed=2', wrong.format('two'), workdir('b')),
    (
      'sweep',
      '--config=configs/ablations.py:table4,test',
      '--config.base.dataset.name=elsewhere/three',
      workdir('c'),
    ),
    ('main', workdir('d')),
    ('sweep', '--help'),
  )
  assert codes == [[2, False]] * 4 + [[0, True]]
  lines = [line for line in lines if line.startswith('error:')]
  for line, word in zip(lines, ('one', 'two', 'three'), strict=False):
    assert f"dataset 'elsewhere/{word}' is unknown" in line
  assert '--config is missing: give it, such as configs/mtnet.py' in lines[3]


def test_words_in_a_flag_need_no_quotes(tmp_path):
  """In runs and sweeps; unknown stages and outputs are refused by name."""
  test = '--config=configs/mtnet.py:test'
  table4 = '--config=configs/ablations.py:table4,test'
  wrong = '--config.dataset.name=elsewhere/{}'.format
  codes, lines = _run(
    ('main', test, '--config.stages=coarse,class', wrong('one')),
    (
      'main',
      test,
      '--config.stages=class',
      '--config.strategy=single',
      wrong('two'),
    ),
    ('main', test, '--config.stages=class', wrong('three')),
    ('main', test, '--config.stages=coarse,final', wrong('four')),
    ('sweep', table4, '--config.base.stages=coarse', f'--workdir={tmp_path}/a'),
    ('sweep', table4, '--config.outputs=clas', f'--workdir={tmp_path}/a'),
  )
  assert codes == [[2, False]] * 6
  one, two, three, four, five, six = (
    line for line in lines if line.startswith('error:')
  )
  assert "'elsewhere/one'" in one and "'elsewhere/two'" in two
  assert 'needs coarse as well: set --config.stages=coarse,class. ' in three
  assert (
    "('coarse', 'final') must be some of coarse, class, fine, joint" in four
  )
  assert "config.base.stages=('coarse',) trains none of" in five
  assert "config.outputs=('clas',) must be some of coarse, class, fine." in six


@pytest.mark.parametrize(
  ('text', 'values'),
  (
    ('class', ('class',)),
    ('coarse, class', ('coarse', 'class')),
    ("('coarse','class')", ('coarse', 'class')),
    ("('coarse',)", ('coarse',)),
    ('', ()),
    ('0,1,2', (0, 1, 2)),
    ('-1000,4e2', (-1000, 400.0)),
    ('(32, 64)', (32, 64)),
  ),
)
def test_tuples_of_flags(text, values):
  assert config_command._TupleParser().parse(text) == values


def test_a_missing_config_file_gives_the_known_ones(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  configs = main_job.ROOT / 'configs'
  for flags, message in (
    (
      ['--config=configs/mtnet.py:demo', '--config.seed=1'],
      f'--config: there is no file configs/mtnet.py in {tmp_path}: give'
      f' --config={configs}/mtnet.py:demo',
    ),
    (
      ['--config', 'mine.py'],
      f'--config: there is no file mine.py in {tmp_path}: the configs of'
      ' this project are ablations.py, baselines.py, lidc_small.py, mtnet.py in'
      f' {configs}',
    ),
    (
      [f'--config={tmp_path}:demo'],
      f'--config: there is no file {tmp_path}: the configs of this project',
    ),
  ):
    with pytest.raises(ValueError, match=re.escape(message)):
      config_command._check_file(['main', *flags])
  (tmp_path / 'mine.py').touch()
  config_command._check_file(['main', '--config=mine.py:x', '--workdir=y'])
  # An installation without a clone has no configs.
  monkeypatch.setattr(
    config_command.mtnet_jax, '__file__', f'{tmp_path}/a/b.py'
  )
  with pytest.raises(ValueError, match='configs/mtnet.py in a clone'):
    config_command._check_file(['main', '--config=mtnet.py'])


def test_flags_of_absl_still_work():
  codes, lines = _run(('main', '--verbosity=1', '--config=configs/no.py'))
  assert codes == [[2, False]]
  assert 'configs/no.py' in lines[-1]
  codes, lines = _run(('main', '--verbosty=1', '--config=configs/mtnet.py'))
  assert "Unknown command line flag 'verbosty'" in lines[-1]
