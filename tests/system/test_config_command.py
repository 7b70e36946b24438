"""A command with --config leaves its process as it was: a notebook's, too."""

import json
import sys

import main_job

# What `%run -m` does, with a standard output that is no file.
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
  codes, says = _run(
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
  says = [line for line in says if line.startswith('error:')]
  for line, word in zip(says, ('one', 'two', 'three'), strict=False):
    assert f"dataset 'elsewhere/{word}' is not of this project" in line
  assert '--config is missing, such as configs/mtnet.py' in says[3]


def test_flags_of_absl_still_work():
  codes, says = _run(('main', '--verbosity=1', '--config=configs/no.py'))
  assert codes == [[2, False]]
  assert 'configs/no.py' in says[-1]
  codes, says = _run(('main', '--verbosty=1', '--config=configs/mtnet.py'))
  assert "Unknown command line flag 'verbosty'" in says[-1]
