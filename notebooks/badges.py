"""Sets the Colab links of the notebooks to the project's repository on GitHub.

    python -m notebooks.badges

writes the badge of every notebook in this folder, and the source from which
Colab installs the package. Both follow from `url` in the section [metadata] of
setup.cfg:

    url = https://github.com/OWNER/NAME

With this line, the badge opens the notebook itself, and Colab installs the
package from the repository. Without `url`, the badge opens Colab's upload page.
Run the command after each change of `url`; a test fails if the notebooks do not
match.
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
# Id of the cell with the badge, which is replaced as a whole.
CELL = 'colab'

_COLAB = 'https://colab.research.google.com'
_BADGE = f'[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]'
_BRANCH = 'main'
# The characters that GitHub allows in names; none of them needs an escape.
_GITHUB = re.compile(r'https://github\.com/([A-Za-z0-9-]+/[A-Za-z0-9._-]+)')
_UPLOAD = f"""\
{_BADGE}({_COLAB}/#upload=true)

The badge opens Colab's upload page. Choose this file there, and set `SOURCE`
below, because Colab has no clone of the project."""
_OPEN = """\
{badge}({colab}/github/{name}/blob/{branch}/notebooks/{file})

Colab installs the package from [{name}](https://github.com/{name})."""
_SOURCE = re.compile(r"^SOURCE = '.*'$", re.MULTILINE)


def configured(setup=SETUP):
  """Returns OWNER/NAME of the `url` in setup.cfg; '' without a `url`.

  Args:
    setup: path of setup.cfg.

  Raises:
    errors.InputError: the file cannot be read, or the URL is not a repository
      on GitHub.
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
      f'{setup}: url = {url} is not a repository on GitHub, from which Colab'
      ' opens notebooks: write it as https://github.com/OWNER/NAME.'
    )
  return found[1]


def rewritten(text, file, name):
  """Returns a notebook with the badge and the source of a repository.

  Args:
    text: the notebook, JSON.
    file: name of its file.
    name: OWNER/NAME from `configured`.

  Raises:
    errors.InputError: the notebook lacks the cells for badge and source.
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
      f'{file} must have one cell with the id {CELL!r}, and one with the tag'
      " 'parameters' and a line SOURCE = '': add both, as in another notebook."
    )
  source = f'git+https://github.com/{name}' if name else ''
  _set_source(badges[0], _colab(file, name))
  _set_source(
    settings[0],
    # A function, because `re` interprets escapes in a replacement text.
    _SOURCE.sub(
      lambda _: f'SOURCE = {source!r}', ''.join(settings[0]['source'])
    ),
  )
  return json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'


def _colab(file, name):
  """Returns the text of the cell `CELL`."""
  if not name:
    return _UPLOAD
  return _OPEN.format(
    badge=_BADGE, colab=_COLAB, branch=_BRANCH, name=name, file=file
  )


def _set_source(cell, text):
  cell['source'] = text.splitlines(keepends=True)


def write(folder=FOLDER, setup=SETUP):
  """Writes all notebooks of a folder.

  Args:
    folder: folder of the notebooks.
    setup: path of setup.cfg.

  Returns:
    The paths of the notebooks that have changed.

  Raises:
    errors.InputError: as in `configured` and `rewritten`; no notebook is
      changed.
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
