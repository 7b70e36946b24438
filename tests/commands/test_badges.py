"""The notebooks' badges follow the URL in setup.cfg."""

import shutil

import main_job
import notebook_files
import pytest

from mtnet_jax.system import errors
from notebooks import badges


def _setup(folder, line):
  path = folder / 'setup.cfg'
  path.write_text(f'[metadata]\nname = x\n{line}\n[options]\nurl = none\n')
  return path


@pytest.fixture
def copies(tmp_path):
  """A folder with copies of the notebooks."""
  folder = tmp_path / 'copies'
  folder.mkdir()
  for path in notebook_files.PATHS:
    shutil.copy(path, folder)
  return folder


def _badge_and_source(path):
  notebook = notebook_files.read(path)
  (badge,) = (cell for cell in notebook.cells if cell.id == 'colab')
  settings = notebook_files.cell_of(notebook, 'parameters').source
  (source,) = (
    line for line in settings.splitlines() if line.startswith('SOURCE = ')
  )
  return badge.source, source


def test_badges_match_setup_cfg():
  name = badges.configured()
  for path in notebook_files.PATHS:
    text = path.read_text(encoding='utf-8')
    assert badges.rewritten(text, path.name, name) == text, (
      f'{path.name}: python -m notebooks.badges'
    )


def test_without_a_url_they_open_the_upload_page(copies, tmp_path):
  badges.write(copies, _setup(tmp_path, ''))
  for path in copies.iterdir():
    text, source = _badge_and_source(path)
    assert '](https://colab.research.google.com/#upload=true)' in text
    assert 'set `SOURCE`' in text
    assert source == "SOURCE = ''"


def test_with_a_url_they_open_the_file_and_colab_installs_from_there(
  copies, tmp_path
):
  without = _setup(tmp_path, '')
  badges.write(copies, without)
  before = {path: path.read_bytes() for path in copies.iterdir()}
  setup = _setup(tmp_path, 'url = https://github.com/some-one/mt.net_2')
  assert badges.write(copies, setup) == sorted(before)
  for path in before:
    text, source = _badge_and_source(path)
    assert text.startswith(
      '[![Open in Colab](https://colab.research.google.com/assets/'
      'colab-badge.svg)](https://colab.research.google.com/github/some-one/'
      f'mt.net_2/blob/main/notebooks/{path.name})\n'
    )
    assert 'upload' not in text
    assert source == "SOURCE = 'git+https://github.com/some-one/mt.net_2'"
  # Writing again changes nothing, and removing the URL undoes it.
  assert badges.write(copies, setup) == []
  assert badges.write(copies, _setup(tmp_path, '')) == sorted(before)
  assert {path: path.read_bytes() for path in copies.iterdir()} == before


def test_with_a_url_colab_installs_the_package(copies, tmp_path, monkeypatch):
  setup = _setup(tmp_path, 'url = https://github.com/me/mtnet_jax')
  badges.write(copies, setup)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  for path in copies.iterdir():
    notebook = notebook_files.read(path)
    settings = {}
    exec(notebook_files.cell_of(notebook, 'parameters').source, settings)
    magics, _ = notebook_files.run_cell(
      notebook, '%pip', monkeypatch, tmp_path, SOURCE=settings['SOURCE']
    )
    assert magics == [
      '%pip install --quiet git+https://github.com/me/mtnet_jax'
    ]


@pytest.mark.parametrize(
  'url',
  (
    'https://gitlab.com/me/mtnet_jax',
    'http://github.com/me/mtnet_jax',
    'https://github.com/me',
    'https://github.com/me/mtnet_jax/',
    'https://github.com/me/mtnet_jax.git',
    'https://github.com/me/mtnet_jax/tree/main',
    "https://github.com/me/mt'+x+'",
    'git@github.com:me/mtnet_jax',
    'https://github.com.evil.org/me/mtnet_jax',
  ),
)
def test_what_is_not_a_github_url_is_refused(url, copies, tmp_path):
  before = {path: path.read_bytes() for path in copies.iterdir()}
  with pytest.raises(errors.InputError, match='OWNER/NAME') as error:
    badges.write(copies, _setup(tmp_path, f'url = {url}'))
  assert url in str(error.value) and '\n' not in str(error.value)
  assert {path: path.read_bytes() for path in copies.iterdir()} == before


def test_a_notebook_without_a_place_for_the_badge_changes_none(
  copies, tmp_path
):
  setup = _setup(tmp_path, 'url = https://github.com/me/mtnet_jax')
  last = copies / 'zzz.ipynb'
  good = (copies / 'real_ct.ipynb').read_text(encoding='utf-8')
  before = {path: path.read_bytes() for path in copies.iterdir()}
  for text, message in (
    (good.replace('"colab"', '"other"'), "one cell with the id 'colab'"),
    (good.replace('SOURCE = ', 'FROM = '), 'a line SOURCE'),
    (good[:-10], 'must be a notebook'),
    ('[]', 'must be a notebook'),
  ):
    last.write_text(text, encoding='utf-8')
    with pytest.raises(errors.InputError, match=message) as error:
      badges.write(copies, setup)
    assert str(error.value).startswith('zzz.ipynb')
    assert {path: path.read_bytes() for path in before} == before


def test_the_command_shows_its_help_and_changes_nothing_here():
  done = main_job.run(main_job.module('notebooks.badges', '--help'))
  assert done.returncode == 0
  assert 'python -m notebooks.badges' in done.stdout
  assert 'url = https://github.com/OWNER/NAME' in done.stdout
  # The badges match setup.cfg already, so the command writes nothing.
  done = main_job.run(main_job.module('notebooks.badges'))
  assert (done.returncode, done.stderr) == (0, '')
  assert 'Written' not in done.stdout
