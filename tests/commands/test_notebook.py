"""The notebooks run anywhere, and restore.ipynb shows what it describes."""

import importlib.util
import io
import pathlib

import main_job
import matplotlib.image
import notebook_files
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.inference import packing
from tfds_lidc import build

_RESTORE = notebook_files.FOLDER / 'restore.ipynb'
_all = pytest.mark.parametrize(
  'path', notebook_files.PATHS, ids=lambda path: path.stem
)


def test_there_are_two():
  names = {path.name for path in notebook_files.PATHS}
  assert names == {'restore.ipynb', 'real_ct.ipynb'}


@_all
def test_it_is_committed_without_output(path):
  notebook = notebook_files.read(path)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert code
  for cell in code:
    assert not cell.outputs and cell.execution_count is None
  assert 'medical device' in notebook.cells[0].source
  # Above all code.
  assert 'colab-badge.svg' in notebook.cells[1].source


@_all
def test_it_is_valid(path):
  nbformat = pytest.importorskip('nbformat', reason='needs the extra test')
  nbformat.validate(notebook_files.read(path))


@_all
def test_without_the_package_it_says_what_to_set(path, tmp_path, monkeypatch):
  """As on Colab, where there is no clone."""
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setenv('HOME', str(tmp_path))

  def install(source):
    notebook = notebook_files.read(path)
    magics, _ = notebook_files.run_cell(
      notebook, '%pip', monkeypatch, tmp_path, SOURCE=source
    )
    return magics

  with pytest.raises(ModuleNotFoundError, match='not installed: set SOURCE'):
    install('')
  for source, installed in (
    ('git+https://host/me/mtnet_jax.git',) * 2,
    ('~/mtnet_jax.whl', f'{tmp_path}/mtnet_jax.whl'),
  ):
    assert install(source) == [f'%pip install --quiet {installed}']
  assert pathlib.Path.cwd() == tmp_path


@_all
@pytest.mark.parametrize('source', ('', 'git+https://host/me/mtnet_jax.git'))
def test_in_a_clone_nothing_is_installed_and_its_root_is_the_directory(
  path, source, monkeypatch
):
  for folder in (notebook_files.FOLDER, main_job.ROOT):
    magics, _ = notebook_files.run_cell(
      notebook_files.read(path), '%pip', monkeypatch, folder, SOURCE=source
    )
    assert magics == []
    assert pathlib.Path.cwd() == main_job.ROOT


@pytest.mark.slow
def test_restore_runs(made_run_dir, tmp_path, monkeypatch):
  """It runs in its own folder, with the dataset in the home folder."""
  packing.write(made_run_dir, tmp_path / 'bundle')
  few = tfds.download.DownloadConfig(max_examples_per_split=3)
  build.build('phantom', data_dir=tmp_path / 'data', download_config=few)
  text, images = notebook_files.run(
    _RESTORE, tmp_path, monkeypatch, MODEL='~/bundle', DATA_DIR='~/data'
  )
  assert 'SIMULATED' in text and 'not a medical device' in text
  assert 'like a windowed or normalised image' in text
  # It uses the existing dataset of three nodules per split, and builds none.
  assert '((3, 64, 64), ' in text
  for folder in (notebook_files.FOLDER, main_job.ROOT):
    assert not (folder / '~').exists()
  assert not (tmp_path / 'tensorflow_datasets').exists()
  (png,) = images
  pathlib.Path(tmp_path, 'figure.png').write_bytes(png)
  pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
  # The figure has three columns, and the readers' contours in green.
  assert pixels.shape[1] > 500
  green = (pixels[..., 1] > 0.7) & (pixels[..., [0, 2]].max(-1) < 0.3)
  assert np.sum(green) > 50
