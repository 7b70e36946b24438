"""Reads and runs the notebooks of the project."""

import base64

import main_job
import matplotlib
import pytest

FOLDER = main_job.ROOT / 'notebooks'
PATHS = sorted(FOLDER.glob('*.ipynb'))


def read(path):
  """Reads a notebook with nbformat."""
  nbformat = pytest.importorskip(
    'nbformat', reason='needs the extra test: nbclient installs it'
  )
  return nbformat.read(path, as_version=4)


def cell_of(notebook, tag):
  """Returns the only cell with a tag."""
  (cell,) = (
    cell for cell in notebook.cells if tag in cell.metadata.get('tags', ())
  )
  return cell


def code_with(notebook, word):
  """Returns the source of the only code cell that contains a word."""
  (source,) = (
    cell.source
    for cell in notebook.cells
    if cell.cell_type == 'code' and word in cell.source
  )
  return source


def run_cell(notebook, word, monkeypatch, folder, **names):
  """Runs a code cell as IPython does.

  Args:
    notebook: from `read`.
    word: text that only this code cell contains.
    monkeypatch: fixture of the test.
    folder: working directory of the cell.
    **names: variables that other cells set.

  Returns:
    The magics that the cell called, and all variables after it.
  """
  inputs = pytest.importorskip(
    'IPython.core.inputtransformer2', reason='needs the extra test'
  )
  magics = []

  class Shell:
    def run_line_magic(self, name, line):
      # IPython replaces variables in braces.
      magics.append(f'%{name} {line.format(**names)}')

  source = code_with(notebook, word)
  monkeypatch.chdir(folder)
  names['get_ipython'] = Shell
  exec(inputs.TransformerManager().transform_cell(source), names)
  return magics, names


def run(path, home, monkeypatch, *, folder=FOLDER, replace=(), **settings):
  """Runs a notebook in its own kernel, without changing its file.

  Args:
    path: path of the notebook.
    home: home folder of the kernel.
    monkeypatch: fixture of the test.
    folder: working directory; default: the folder of the notebooks.
    replace: pairs of a text that occurs in one cell, and its replacement.
    **settings: values that replace those of the first code cell.

  Returns:
    The text and the PNG images (bytes) that it shows.
  """
  nbclient = pytest.importorskip('nbclient', reason='needs the extra test')
  pytest.importorskip('ipykernel', reason='needs the extra test')
  notebook = read(path)
  cell = cell_of(notebook, 'parameters')
  for name, value in settings.items():
    assert f'\n{name} = ' in cell.source
    cell.source += f'\n{name} = {value!r}'
  for old, new in replace:
    (cell,) = (cell for cell in notebook.cells if old in cell.source)
    cell.source = cell.source.replace(old, new)
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setenv('PYTHONPATH', str(main_job.ROOT))
  # In a new home folder, Matplotlib would search for fonts, which takes long.
  monkeypatch.setenv('MPLCONFIGDIR', matplotlib.get_cachedir())
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
  ).execute()
  return outputs(notebook)


def outputs(notebook):
  """Returns the text and the PNG images (bytes) that a notebook shows."""
  texts, images = [], []
  for cell in notebook.cells:
    for output in cell.get('outputs', ()):
      assert output.output_type != 'error'
      data = output.get('data', {})
      texts.append(output.get('text', ''))
      texts += [data.get(f'text/{kind}', '') for kind in ('markdown', 'plain')]
      if 'image/png' in data:
        images.append(base64.b64decode(data['image/png']))
  return '\n'.join(texts), images
