"""Makes the notebooks open in Colab from where the project is hosted.

    python -m notebooks.badges

writes the badge of every notebook of this folder, and what its Colab installs,
after `url` of the section [metadata] of setup.cfg:

    url = https://github.com/OWNER/NAME

makes the badge open the file itself, and Colab install the package from there.
As long as there is no `url`, the badge opens Colab's upload page. Give the
command after each change of it; a test tells where it was not given.
"""

import argparse
import configparser
import json
import pathlib
import re

from mtnet_jax.storage import files
from mtnet_jax.system import errors

FOLDER = pathlib.Path(__file__).resolve().parent
SETUP = FOLDER.parent / 'setup.cfg'
# The cell that is written as a whole.
CELL = 'colab'

_COLAB = 'https://colab.research.google.com'
_BADGE = f'[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]'
_BRANCH = 'main'
# Characters that GitHub has in names: none of them needs an escape anywhere.
_GITHUB = re.compile(r'https://github\.com/([A-Za-z0-9-]+/[A-Za-z0-9._-]+)')
_UPLOAD = f"""\
{_BADGE}({_COLAB}/#upload=true)

The badge opens Colab's upload page: choose this file there, and set `SOURCE`
below, for Colab has no clone of the project."""
_OPEN = """\
{badge}({colab}/github/{name}/blob/{branch}/notebooks/{file})

Colab installs the package from [{name}](https://github.com/{name})."""
_SOURCE = re.compile(r"^SOURCE = '.*'$", re.MULTILINE)


def configured(setup=SETUP):
  """OWNER/NAME on GitHub of the `url` in a setup.cfg; '' without one.

  Raises:
    errors.InputError: the file is none, or the URL is none of GitHub.
  """
  parser = configparser.ConfigParser(interpolation=None)
  try:
    parser.read_string(pathlib.Path(setup).read_text(encoding='utf-8'))
  except (configparser.Error, UnicodeDecodeError) as error:
    raise errors.InputError(
      f'{setup} cannot be read ({error}): restore it.'
    ) from error
  url = parser.get('metadata', 'url', fallback='').strip()
  if not url:
    return ''
  found = _GITHUB.fullmatch(url)
  if not found or url.endswith('.git'):
    raise errors.InputError(
      f'{setup}: url = {url} is no repository of GitHub, from which Colab opens'
      ' notebooks: write it as https://github.com/OWNER/NAME.'
    )
  return found[1]


def rewritten(text, file, name):
  """A notebook as it is where the project is hosted.

  Args:
    text: the notebook, JSON.
    file: its name.
    name: of `configured`.

  Raises:
    errors.InputError: it has no place for what is written.
  """
  with errors.of_wrong_values(
    f'{file} must be a notebook', way_out='Restore it.'
  ):
    notebook = json.loads(text)
    cells = notebook['cells']
    badges = [cell for cell in cells if cell['id'] == CELL]
    settings = [
      cell
      for cell in cells
      if 'parameters' in cell['metadata'].get('tags', ())
      and _SOURCE.search(''.join(cell['source']))
    ]
  if len(badges) != 1 or len(settings) != 1:
    raise errors.InputError(
      f'{file} must have one cell of the id {CELL!r}, and one of the tag'
      " 'parameters' with a line SOURCE = '': give it both, as another notebook"
      ' has them.'
    )
  source = f'git+https://github.com/{name}' if name else ''
  _set_source(badges[0], _colab(file, name))
  _set_source(
    settings[0],
    # A function, since a replacement would have escapes of its own.
    _SOURCE.sub(
      lambda _: f'SOURCE = {source!r}', ''.join(settings[0]['source'])
    ),
  )
  return json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'


def _colab(file, name):
  """The text of the cell `CELL`."""
  if not name:
    return _UPLOAD
  return _OPEN.format(
    badge=_BADGE, colab=_COLAB, branch=_BRANCH, name=name, file=file
  )


def _set_source(cell, text):
  cell['source'] = text.splitlines(keepends=True)


def write(folder=FOLDER, setup=SETUP):
  """Writes all notebooks of a folder; returns those that have changed.

  Raises:
    errors.InputError: as above; no notebook was changed.
  """
  name = configured(setup)
  changed = {}
  for path in sorted(pathlib.Path(folder).glob('*.ipynb')):
    before = path.read_text(encoding='utf-8')
    after = rewritten(before, path.name, name)
    if after != before:
      changed[path] = after
  for path, text in changed.items():
    files.write_text(path, text)
  return list(changed)


def main(argv=None):
  """Runs the command."""
  argparse.ArgumentParser(
    prog='python -m notebooks.badges',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  ).parse_args(argv)
  name = configured()
  for path in write():
    print(f'Written: {path}')
  print(
    f'Badges open the notebooks of {name}.'
    if name
    else f"Badges open Colab's upload page: {SETUP} has no url."
  )


if __name__ == '__main__':
  errors.exit_on_input_error(main)
