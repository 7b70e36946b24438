"""The notebook runs from top to bottom, and shows what it says."""

import base64
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


@pytest.mark.slow
def test_it_runs(made_run_dir, tmp_path, monkeypatch):
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
  notebook.cells[parameters].source += (
    f'\nMODEL = {str(tmp_path / "bundle")!r}'
    f'\nDATA_DIR = {str(tmp_path / "data")!r}'
  )
  monkeypatch.setenv('PYTHONPATH', str(main_job.ROOT))
  nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  ).execute()
  texts, images = [], []
  for cell in notebook.cells:
    for output in cell.get('outputs', ()):
      assert output.output_type != 'error'
      data = output.get('data', {})
      texts.append(output.get('text', data.get('text/markdown', '')))
      if 'image/png' in data:
        images.append(base64.b64decode(data['image/png']))
  text = '\n'.join(texts)
  assert 'SIMULATED' in text and 'Not a medical device' in text
  assert 'as a windowed image does' in text
  (png,) = images
  pathlib.Path(tmp_path, 'figure.png').write_bytes(png)
  pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
  # Three columns; readers' outlines in green are in it.
  assert pixels.shape[1] > 500
  green = (pixels[..., 1] > 0.7) & (pixels[..., [0, 2]].max(-1) < 0.3)
  assert np.sum(green) > 50
