"""The notebooks of the project, and runs of them from top to bottom."""

import base64

import main_job
import matplotlib
import pytest

FOLDER = main_job.ROOT / 'notebooks'
PATHS = sorted(FOLDER.glob('*.ipynb'))


def read(path):
  """A notebook, of nbformat."""
  nbformat = pytest.importorskip(
    'nbformat', reason='needs the extra test: nbclient brings it'
  )
  return nbformat.read(path, as_version=4)


def cell_of(notebook, tag):
  """Its cell with a tag."""
  (cell,) = (
    cell for cell in notebook.cells if tag in cell.metadata.get('tags', ())
  )
  return cell


def code_with(notebook, word):
  """The source of its code cell with a word in it."""
  (source,) = (
    cell.source
    for cell in notebook.cells
    if cell.cell_type == 'code' and word in cell.source
  )
  return source


def run_cell(notebook, word, monkeypatch, folder, **names):
  """Runs the code cell with a word in it as IPython does.

  Args:
    notebook: of `read`.
    word: that no other code cell has in it.
    monkeypatch: of the test.
    folder: in which it runs.
    **names: that other cells have set.

  Returns:
    The magics that it called, and all names after it.
  """
  inputs = pytest.importorskip(
    'IPython.core.inputtransformer2', reason='needs the extra test'
  )
  magics = []

  class Shell:
    def run_line_magic(self, name, line):
      # IPython fills in what stands in braces.
      magics.append(f'%{name} {line.format(**names)}')

  source = code_with(notebook, word)
  monkeypatch.chdir(folder)
  names['get_ipython'] = Shell
  exec(inputs.TransformerManager().transform_cell(source), names)
  return magics, names


def run(path, home, monkeypatch, *, folder=FOLDER, replace=(), **settings):
  """Runs a notebook in a kernel of its own; its file stays as it is.

  Args:
    path: of the notebook.
    home: the home folder of its user.
    monkeypatch: of the test.
    folder: in which it runs; its own, unless another is given.
    replace: pairs of a text that stands in it once, and another in its place.
    **settings: in place of those of its first code cell.

  Returns:
    Its text, and its PNG images as bytes.
  """
  nbclient = pytest.importorskip('nbclient', reason='needs the extra test')
  pytest.importorskip('ipykernel', reason='needs the extra test')
  notebook = read(path)
  cell = cell_of(notebook, 'parameters')
  for name, value in settings.items():
    assert f'\n{name} = ' in cell.source
    cell.source += f'\n{name} = {value!r}'
  for old, new in replace:
    (at,) = (cell for cell in notebook.cells if old in cell.source)
    at.source = at.source.replace(old, new)
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setenv('PYTHONPATH', str(main_job.ROOT))
  # In a new home folder, Matplotlib looks for all fonts, which takes seconds.
  monkeypatch.setenv('MPLCONFIGDIR', matplotlib.get_cachedir())
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(folder)}},
  ).execute()
  return outputs(notebook)


def outputs(notebook):
  """The text that a notebook has put out, and its PNG images as bytes."""
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
