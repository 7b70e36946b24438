"""The networks in PyTorch as one file that needs nothing else."""

import ast
import pathlib
import re

from mtnet_jax.weights import exported_settings

_HERE = pathlib.Path(__file__).parent
# Downwards: each uses those before it.
_FILES = (
  _HERE / 'layers.py',
  _HERE / 'deeplab.py',
  _HERE / 'xception.py',
  _HERE / 'patches.py',
  pathlib.Path(exported_settings.__file__),
  _HERE / 'tensor_file.py',
  _HERE / 'mtnet.py',
)
_PACKAGE = __name__.partition('.')[0]


def source(docstring):
  """The text of the file.

  Args:
    docstring: what it begins with.
  """
  imports, bodies = set(), []
  for path in _FILES:
    text = path.read_text('utf-8')
    found, body = _parts(text)
    imports.update(found)
    title = ast.get_docstring(ast.parse(text)).splitlines()[0]
    bodies.append(f'# {title}\n\n\n{body}')
  theirs = {line for line in imports if 'torch' in line}
  head = '\n\n'.join(
    [
      f'"""{docstring}"""',
      '\n'.join(sorted(imports - theirs)),
      '\n'.join(sorted(theirs, key=_place)),
    ]
  )
  return '\n\n\n'.join([head, *bodies]) + '\n'


def _place(line):
  """Where a line of an import stands: by module, a whole one first."""
  return line.split()[1], line.startswith('from')


def _parts(text):
  """Imports from elsewhere, and the code after them, of a module's text."""
  tree = ast.parse(text)
  nodes = [
    node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
  ]
  lines = text.splitlines()
  # A module without imports begins with its docstring.
  head = nodes[-1] if nodes else tree.body[0]
  body = '\n'.join(lines[head.end_lineno :]).strip('\n')
  siblings, imports = [], []
  for node in nodes:
    module = getattr(node, 'module', '')
    if module.partition('.')[0] == _PACKAGE:
      siblings += [alias.name for alias in node.names]
    else:
      imports.append(ast.unparse(node))
  # In one file their names stand for themselves.
  pattern = rf'\b(?:{"|".join(siblings) or "(?!)"})\.(?=[A-Za-z])'
  return imports, re.sub(pattern, '', body)
