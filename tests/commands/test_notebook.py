"""The notebook runs from top to bottom, and shows what it says."""

import base64
import importlib.util
import io
import pathlib

import main_job
import matplotlib.image
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.inference import packing
from tfds_lidc import build

_NOTEBOOK = main_job.ROOT / 'notebooks' / 'restore.ipynb'


def _read():
  nbformat = pytest.importorskip(
    'nbformat', reason='needs the extra test: nbclient brings it'
  )
  return nbformat.read(_NOTEBOOK, as_version=4)


def test_it_is_committed_without_output():
  notebook = _read()
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert code
  for cell in code:
    assert not cell.outputs and cell.execution_count is None
  assert 'colab-badge.svg' in notebook.cells[0].source


def test_it_is_valid():
  nbformat = pytest.importorskip('nbformat', reason='needs the extra test')
  nbformat.validate(_read())


def _run_cell(word, monkeypatch, folder, **names):
  """Runs the code cell with a word in it as IPython does; returns magics."""
  inputs = pytest.importorskip(
    'IPython.core.inputtransformer2', reason='needs the extra test'
  )
  magics = []

  class Shell:
    def run_line_magic(self, name, line):
      # IPython fills in what stands in braces.
      magics.append(f'%{name} {line.format(**names)}')

  (source,) = (
    cell.source
    for cell in _read().cells
    if cell.cell_type == 'code' and word in cell.source
  )
  monkeypatch.chdir(folder)
  names['get_ipython'] = Shell
  exec(inputs.TransformerManager().transform_cell(source), names)
  return magics


def test_where_nothing_is_installed_it_says_what_to_set(tmp_path, monkeypatch):
  """As on Colab, which has no clone."""
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(ModuleNotFoundError, match='not installed: set SOURCE'):
    _run_cell('%pip', monkeypatch, tmp_path, SOURCE='')
  for source, installed in (
    ('git+https://host/me/mtnet_jax.git',) * 2,
    ('~/mtnet_jax.whl', f'{tmp_path}/mtnet_jax.whl'),
  ):
    magics = _run_cell('%pip', monkeypatch, tmp_path, SOURCE=source)
    assert magics == [f'%pip install --quiet {installed}']
  assert pathlib.Path.cwd() == tmp_path


def test_paths_begin_at_the_root_of_the_clone(monkeypatch):
  for folder in (_NOTEBOOK.parent, main_job.ROOT):
    assert _run_cell('%pip', monkeypatch, folder, SOURCE='') == []
    assert pathlib.Path.cwd() == main_job.ROOT


@pytest.mark.slow
def test_it_runs(made_run_dir, tmp_path, monkeypatch):
  """From its own folder, with a data directory in the home folder."""
  nbclient = pytest.importorskip('nbclient', reason='needs the extra test')
  pytest.importorskip('ipykernel', reason='needs the extra test')
  packing.write(made_run_dir, tmp_path / 'bundle')
  few = tfds.download.DownloadConfig(max_examples_per_split=3)
  build.build('phantom', data_dir=tmp_path / 'data', download_config=few)
  notebook = _read()
  (parameters,) = (
    i
    for i, cell in enumerate(notebook.cells)
    if 'parameters' in cell.metadata.get('tags', ())
  )
  notebook.cells[
    parameters
  ].source += "\nMODEL = '~/bundle'\nDATA_DIR = '~/data'"
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('PYTHONPATH', str(main_job.ROOT))
  nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name='python3',
    resources={'metadata': {'path': str(_NOTEBOOK.parent)}},
  ).execute()
  texts, images = [], []
  for cell in notebook.cells:
    for output in cell.get('outputs', ()):
      assert output.output_type != 'error'
      data = output.get('data', {})
      texts.append(output.get('text', ''))
      texts += [data.get(f'text/{kind}', '') for kind in ('markdown', 'plain')]
      if 'image/png' in data:
        images.append(base64.b64decode(data['image/png']))
  text = '\n'.join(texts)
  assert 'SIMULATED' in text and 'Not a medical device' in text
  assert 'as a windowed image does' in text
  # The dataset that was there, of three nodules a split; and no other one.
  assert '((3, 64, 64), ' in text
  for folder in (_NOTEBOOK.parent, main_job.ROOT):
    assert not (folder / '~').exists()
  assert not (tmp_path / 'tensorflow_datasets').exists()
  (png,) = images
  pathlib.Path(tmp_path, 'figure.png').write_bytes(png)
  pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
  # Three columns; readers' outlines in green are in it.
  assert pixels.shape[1] > 500
  green = (pixels[..., 1] > 0.7) & (pixels[..., [0, 2]].max(-1) < 0.3)
  assert np.sum(green) > 50
