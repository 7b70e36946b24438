"""Runs the commands of README and docs as they are written there."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib

import doc_pages
import main_job
import pytest


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


def test_the_first_page_is_short():
  assert len(doc_pages.text('README.md').splitlines()) < 150


def test_the_guides_have_every_command():
  texts = map(doc_pages.text, doc_pages.GUIDES)
  modules = {command[0] for x in texts for command in doc_pages.commands(x)}
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


@pytest.mark.parametrize('page', doc_pages.PAGES)
def test_link_targets_exist(page):
  folder = (main_job.ROOT / page).parent
  for link in re.findall(r'\]\(([^)]+)\)', doc_pages.text(page)):
    if '://' in link:
      continue
    path, _, anchor = link.partition('#')
    target = (folder / path).resolve() if path else main_job.ROOT / page
    assert target.exists(), link
    if anchor:
      linked = target.relative_to(main_job.ROOT)
      assert anchor in doc_pages.titles(linked), link


@pytest.mark.parametrize('page', doc_pages.PAGES)
def test_cells_of_tables_are_short(page):
  """What is longer than 300 characters is a paragraph."""
  rows = re.findall(r'^\|(.*)\|$', doc_pages.text(page), re.MULTILINE)
  long_cells = [
    cell
    for row in rows
    for cell in re.split(r'(?<!\\)\|', row)
    # Addresses of links are not read.
    if len(re.sub(r'\]\([^)]*\)', ']', cell).strip()) > 300
  ]
  assert long_cells == []


@pytest.mark.parametrize('page', doc_pages.GUIDES)
def test_code_is_python(page):
  for code in doc_pages.blocks(doc_pages.text(page)):
    ast.parse(code)


def test_extras_are_quoted():
  """Shells such as zsh read `.[test]` as a pattern."""
  for page in doc_pages.PAGES:
    for command in re.findall(r'pip install.*', doc_pages.text(page)):
      for word in re.findall(r'\S+\[\S+', command):
        assert word.startswith(("'", '"')), command


def test_the_first_training_is_the_job_of_the_tests():
  """The tests only use a smaller variant than the demo."""
  job = main_job.test_size_job('runs/demo', 'data')[2:]
  assert job[1].endswith('configs/mtnet.py:test')
  for page, title in (
    ('README.md', 'Training'),
    ('docs/training.md', 'A first run, in minutes'),
  ):
    command = next(doc_pages.commands(doc_pages.section(page, title)))
    assert command == [job[0], '--config=configs/mtnet.py:demo']


@pytest.mark.slow
def test_a_bundle_is_loaded_and_predicts(made_run_dir, tmp_path, compiled):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(made_run_dir)
  (pack,) = doc_pages.commands(
    doc_pages.section('docs/models.md', 'One of your own')
  )
  _run(['-m', *pack], tmp_path, **compiled)
  shipped, own = (
    block
    for block in doc_pages.blocks(doc_pages.text('docs/models.md'))
    if 'mtnet_jax.load' in block
  )
  (readme,) = (
    block
    for block in doc_pages.blocks(doc_pages.text('README.md'))
    if 'mtnet_jax.load' in block
  )
  code = (
    'import numpy as np\n'
    'hu = np.random.default_rng(0).normal(-700, 200, (2, 64, 64))\n'
    'pixel_spacing_mm = 0.7\n'
    + own
    + ''.join(
      f'{x}\nprint(prediction.mask.shape, prediction.malignancy.shape)\n'
      # The tiny model is faster than the shipped one.
      for x in (shipped, readme)
    ).replace("'lidc-small'", "'demo-bundle'")
  )
  output = _run(['-c', code], tmp_path, **compiled)
  assert output == 2 * '(2, 64, 64) (2,)\n'


@pytest.mark.slow
def test_a_model_is_exported_to_pytorch_and_its_weights_are_read_back(
  tmp_path, compiled
):
  page = doc_pages.section('docs/models.md', 'In other programs')
  export, inspect, train = doc_pages.commands(page)
  _run(['-m', *export], tmp_path, **compiled)
  out = tmp_path / 'OUT'
  assert {x.name for x in out.iterdir()} == {
    'README.md',
    'mtnet.py',
    'weights.safetensors',
  }
  (out / 'weights.safetensors').rename(tmp_path / 'trained.safetensors')
  output = _run(['-m', *inspect], tmp_path)
  flags = [x for x in train if x.startswith('--config.pretrained.')]
  assert len(flags) == 2
  assert all(flag in output for flag in flags)


@pytest.mark.slow
def test_a_ct_is_predicted(made_run_dir, tmp_path, compiled):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(made_run_dir)
  with_points, phantom, annotated = (
    command
    for command in doc_pages.commands(doc_pages.text('docs/predict.md'))
    if '--ct=FILE' not in command
  )
  assert list(doc_pages.commands(doc_pages.text('README.md')))[:2] == [
    phantom,
    annotated,
  ]
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
def test_the_dataset_is_read_without_jax(phantom_data_dir, tmp_path):
  (code,) = doc_pages.blocks(
    doc_pages.section('README.md', 'The dataset alone')
  )
  # Real CT is missing here; TFDS reads the folder from the environment.
  code = code.replace('lidc_nodules/paper', 'lidc_nodules/phantom')
  code += 'import sys; print(nodules[0]["image"].shape, "jax" in sys.modules)'
  output = _run(['-c', code], tmp_path, TFDS_DATA_DIR=str(phantom_data_dir))
  assert output == '(64, 64, 1) False\n'


def test_ci_runs_these_commands():
  """It runs all except the long tests, and the test files it names exist."""
  text = doc_pages.text('docs/development.md')
  script = (main_job.ROOT / '.ci' / 'run').read_text(encoding='utf-8')
  patterns = re.findall(r'documented "([^"]+)"', script)
  commands = []
  for pattern in patterns:
    commands.append(re.search(f'^    ({pattern}.*)', text, re.MULTILINE)[1])
  documented = (
    r"""^    (pip install -e '\.\[(?:test|beam).*|pytest (?!.*-m long$).*)"""
  )
  assert commands == re.findall(documented, text, re.MULTILINE)
  # README has the first of them, too.
  assert commands[:1] == re.findall(
    documented, doc_pages.text('README.md'), re.MULTILINE
  )
  named = re.findall(r'^ +(tests/\S+)', script, re.MULTILINE)
  listed = subprocess.run(
    ['bash', '-c', f'printf "%s\\n" {" ".join(named)}'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  # 9 folders run on the newest Python, 10 files with the lowest versions.
  assert len(listed) == 9 + 10
  for path in listed:
    assert (main_job.ROOT / path).exists(), path


def test_every_tier_of_tests_has_its_command():
  """Every test is one of: selected by default, slow, or long."""
  settings = tomllib.loads((main_job.ROOT / 'pyproject.toml').read_text())
  options = settings['tool']['pytest']['ini_options']
  assert options['addopts'] == "-m 'not slow and not long'"
  assert [x.partition(':')[0] for x in options['markers']] == [
    'slow',
    'long',
    'extra',
  ]
  commands = re.findall(
    r'^    (?:pip .* && )?(pytest .*)',
    doc_pages.text('docs/development.md'),
    re.MULTILINE,
  )
  assert [shlex.split(x)[5:] for x in commands] == [
    [],
    ['-m', '(slow or extra) and not long'],
    ['-m', 'long'],
  ]
