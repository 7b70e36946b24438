"""Folds the PyTorch networks into one file that needs only PyTorch.

The modules may import each other (`from mtnet_jax... import layers`) and the
standard library, all at their top; in the file, `layers.resize` becomes
`resize`. Names at module level must therefore be unique over all modules.
"""

import ast
import pathlib
import re

from mtnet_jax.weights import exported_settings

_HERE = pathlib.Path(__file__).parent
# In order of dependence: each may use those before it.
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


def source(docstring: str) -> str:
  """Returns the text of the file, with a docstring at its top."""
  imports: set[str] = set()
  bodies = []
  for path in _FILES:
    text = path.read_text('utf-8')
    external, body = _parts(text)
    imports.update(external)
    doc = ast.get_docstring(ast.parse(text))
    assert doc  # Ruff requires one of every module.
    bodies.append(f'# {doc.splitlines()[0]}\n\n\n{body}')
  torch_imports = {line for line in imports if 'torch' in line}
  head = '\n\n'.join(
    [
      f'"""{docstring}"""',
      '\n'.join(sorted(imports - torch_imports, key=_import_order)),
      '\n'.join(sorted(torch_imports, key=_import_order)),
    ]
  )
  return '\n\n\n'.join([head, *bodies]) + '\n'


def _import_order(line: str) -> tuple[str, bool, str]:
  """Sorts imports by module; `import x` comes before `from x import y`."""
  return line.split()[1], line.startswith('from'), line


def _parts(text: str) -> tuple[list[str], str]:
  """Splits a module into its external imports and the code after them."""
  tree = ast.parse(text)
  nodes = [
    node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
  ]
  lines = text.splitlines()
  # The code starts after the imports, or after the docstring.
  head = nodes[-1] if nodes else tree.body[0]
  body = '\n'.join(lines[head.end_lineno :]).strip('\n')
  siblings, imports = [], []
  for node in nodes:
    module = getattr(node, 'module', '')
    if module.partition('.')[0] == _PACKAGE:
      siblings += [alias.name for alias in node.names]
    else:
      imports.append(ast.unparse(node))
  # `layers.resize` becomes `resize`.
  pattern = rf'\b(?:{"|".join(siblings) or "(?!)"})\.(?=[A-Za-z])'
  return imports, re.sub(pattern, '', body)
