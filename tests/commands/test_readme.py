"""The README's commands, as they stand there."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib

import main_job
import pytest

_TEXT = (main_job.ROOT / 'README.md').read_text(encoding='utf-8')


def _sections():
  """Title -> text."""
  parts = re.split(r'^## (.*)\n', _TEXT, flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2], strict=True))


def _commands(text):
  """Arguments of each `python -m ...` of the indented blocks."""
  blocks = re.findall(r'(?:^ {4}.*\n)+', text, re.MULTILINE)
  for line in ''.join(blocks).replace('\\\n', ' ').splitlines():
    command = line.partition('python -m ')[2]
    if command:
      yield shlex.split(command, comments=True)


def _code(text):
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  return code


def _run(arguments, cwd, **env):
  done = subprocess.run(
    [sys.executable, *arguments],
    cwd=cwd,
    env=main_job.environment(**env),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, (arguments, done.stderr[-2000:])
  return done.stdout


def test_it_holds_commands_of_every_way_in():
  modules = {command[0] for command in _commands(_TEXT)}
  assert modules == {
    'mtnet_jax.main',
    'mtnet_jax.bundle',
    'mtnet_jax.export',
    'mtnet_jax.predict',
    'mtnet_jax.evaluate',
    'mtnet_jax.pretrained',
    'mtnet_jax.report',
    'mtnet_jax.sweep',
    'tfds_lidc.cohort',
    'tfds_lidc.check',
    'tfds_lidc.build',
    'tfds_lidc.phantom',
  }
  for section in ('A trained model elsewhere', 'The dataset alone'):
    ast.parse(_code(_sections()[section]))
  for link in re.findall(r'\]\(([^)#]+)\)', _TEXT):
    if '://' not in link:
      assert (main_job.ROOT / link).exists(), link
  titles = {title.lower().replace(' ', '-') for title in _sections()}
  assert set(re.findall(r'\]\(#([^)]+)\)', _TEXT)) <= titles


def test_training_is_the_job_of_the_tests():
  """Which take the config's smallest size instead of the demo."""
  command = next(_commands(_sections()['Try it']))
  job = main_job.test_size_job('runs/demo', 'data')[2:]
  assert command == [job[0], '--config=configs/mtnet.py:demo']
  assert job[1].endswith('configs/mtnet.py:test')


@pytest.mark.slow
def test_a_model_is_taken_elsewhere_and_shown_a_ct(
  made_run_dir, tmp_path, compiled
):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(made_run_dir)
  sections = _sections()
  elsewhere = sections['A trained model elsewhere']
  pack, export = _commands(elsewhere)
  _run(['-m', *pack], tmp_path, **compiled)
  code = (
    'import numpy as np\n'
    'hu = np.random.default_rng(0).normal(-700, 200, (2, 64, 64))\n'
    'pixel_spacing_mm = 0.7\n'
    + _code(elsewhere)
    + 'print(prediction.mask.shape, prediction.malignancy.shape)\n'
  )
  assert _run(['-c', code], tmp_path, **compiled) == '(2, 64, 64) (2,)\n'
  _run(['-m', *export], tmp_path, **compiled)
  assert (tmp_path / 'demo-stablehlo' / 'README.md').exists()

  with_points, phantom, annotated = _commands(sections['On a CT of your own'])
  _run(['-m', *phantom], tmp_path)
  assert 'SIMULATED' in _run(['-m', *annotated], tmp_path, **compiled)
  out = tmp_path / 'OUT'
  assert len(list(out.glob('LIDC-IDRI-0220*.png'))) == 3
  out.rename(tmp_path / 'annotated')
  os.rename(tmp_path / 'sim', tmp_path / 'DIR')
  (tmp_path / 'points.csv').write_text('i,j,k\n250,250,100\n')
  _run(['-m', *with_points], tmp_path, **compiled)
  assert (out / '1.png').exists() and (out / 'predictions.json').exists()


@pytest.mark.slow
def test_the_dataset_is_read_alone(phantom_data_dir, tmp_path):
  code = _code(_sections()['The dataset alone'])
  # CT is not there; TFDS takes the folder from the environment.
  code = code.replace('lidc_nodules/paper', 'lidc_nodules/phantom')
  code += 'import sys; print(nodules[0]["image"].shape, "jax" in sys.modules)'
  said = _run(['-c', code], tmp_path, TFDS_DATA_DIR=str(phantom_data_dir))
  assert said == '(64, 64, 1) False\n'


def test_ci_runs_these_commands():
  """All but that of the long tests; and the test files that it names exist."""
  script = (main_job.ROOT / '.ci' / 'run').read_text(encoding='utf-8')
  patterns = re.findall(r"readme_command (?:'([^']+)'|\"([^\"]+)\")", script)
  commands = []
  for pattern in map(''.join, patterns):
    commands.append(re.search(f'^    ({pattern}.*)', _TEXT, re.MULTILINE)[1])
  assert commands == re.findall(
    r'^    (pip install -e \.\[(?:test|beam).*|pytest (?!.*-m long$).*)',
    _TEXT,
    re.MULTILINE,
  )
  named = re.findall(r'^ +(tests/\S+)', script, re.MULTILINE)
  listed = subprocess.run(
    ['bash', '-c', f'printf "%s\\n" {" ".join(named)}'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  # Wings on the newest Python, and files with the lowest versions.
  assert len(listed) == 8 + 10
  for path in listed:
    assert (main_job.ROOT / path).exists(), path


def test_every_tier_of_tests_has_its_command():
  """Each test is of one: what `pytest` alone selects, slow, or long."""
  settings = tomllib.loads((main_job.ROOT / 'pyproject.toml').read_text())
  options = settings['tool']['pytest']['ini_options']
  assert options['addopts'] == "-m 'not slow and not long'"
  assert [x.partition(':')[0] for x in options['markers']] == [
    'slow',
    'long',
    'extra',
  ]
  commands = re.findall(r'^    (?:pip .* && )?(pytest .*)', _TEXT, re.MULTILINE)
  assert [shlex.split(x)[5:] for x in commands] == [
    [],
    ['-m', '(slow or extra) and not long'],
    ['-m', 'long'],
  ]
