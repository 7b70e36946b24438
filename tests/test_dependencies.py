"""Modules import only what the tables below allow, and never in a circle.

A wing is a folder of a package. A file beside the wings is a command or a
module that users import.
"""

import ast
import re
import sys

import main_job
import pytest

# Wing -> the wings and files that it may import. A file outside the wings has a
# row if wings import it.
_MAY_IMPORT = {
  'mtnet_jax': {
    'system': '',
    'losses': '',
    'metrics': '',
    'storage': 'system',
    'ops': 'system',
    'data': 'system metrics',
    'models': 'system ops data.augment metrics',
    'weights': 'system models',
    'evaluation': 'system storage data models metrics',
    'reports': 'storage data evaluation metrics',
    'training': 'system storage data models weights losses metrics',
    'inference': (
      'system storage data ops.target models weights.exported'
      ' weights.exported_settings evaluation reports metrics'
    ),
    'ct': (
      'system storage reports.figures reports.nodule_page reports.overlays'
      ' metrics'
    ),
    'experiments': (
      'system storage ops.native data models evaluation reports training'
    ),
  },
  'tfds_lidc': {
    'errors': '',
    'parallel': '',
    'paths': 'errors',
    'command_line': 'errors parallel paths',
    'ct': 'errors parallel',
    'folder_swap': '',
    'nodules': 'errors paths',
    'phantom': 'errors command_line nodules',
    'scans': 'errors parallel ct nodules phantom',
    'lidc_nodules': (
      'errors paths command_line parallel folder_swap ct nodules phantom scans'
    ),
    # These are commands, which no other module imports.
    'tools': 'errors command_line ct nodules scans',
  },
}
_COMMANDS = {
  'mtnet_jax': (
    'bundle',
    'evaluate',
    'export',
    'main',
    'predict',
    'pretrained',
    'report',
    'sweep',
  ),
  'tfds_lidc': ('build', 'check', 'cohort'),
}
# Wings of `mtnet_jax` that may import `tfds_lidc` inside functions.
_MAY_USE_THE_DATASET = ('data', 'ct')
# Wings of `mtnet_jax` that may import only `tfds_lidc.folder_swap`.
_MAY_USE_FOLDER_SWAP = ('storage',)


def _files(package):
  """Returns module name below the package -> path; '' is the package itself."""
  directory = main_job.ROOT / package
  return {
    '.'.join(path.relative_to(directory).with_suffix('').parts)
    .removesuffix('__init__')
    .removesuffix('.'): path
    for path in sorted(directory.rglob('*.py'))
  }


_FILES = {package: _files(package) for package in _MAY_IMPORT}
_EVERY_FILE = [
  (package, module) for package in _FILES for module in _FILES[package]
]


def _imports(tree):
  """Yields the full names of all imports of a syntax tree."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute'
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def _imports_on_loading(tree):
  """Yields the full names of imports that run when the module is imported."""
  functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
  pending = [tree]
  while pending:
    node = pending.pop()
    if isinstance(node, functions):
      continue
    # Only a type checker imports what is in this branch.
    if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
      pending.extend(node.orelse)
      continue
    if isinstance(node, (ast.Import, ast.ImportFrom)):
      yield from _imports(node)
    pending.extend(ast.iter_child_nodes(node))


def _internal(name):
  """Returns the imported (package, module), or None for other packages."""
  package, _, module = name.partition('.')
  if package not in _FILES:
    return None
  # The last parts may be names inside a module.
  while module not in _FILES[package]:
    module = module.rpartition('.')[0]
  return package, module


def _parse(package, module):
  path = _FILES[package][module]
  return ast.parse(path.read_text(encoding='utf-8'), str(path))


def _targets(package, module):
  """Returns the modules of both packages that a file imports."""
  return {
    target
    for name in _imports(_parse(package, module))
    if (target := _internal(name)) is not None
  }


def _wing(module):
  """Returns the row of `_MAY_IMPORT` for a module."""
  return module.partition('.')[0]


def _floors(graph):
  """Returns node -> longest chain of imports below it; fails on a circle."""
  floors, chain = {}, []

  def floor(node):
    assert node not in chain, f'circle: {[*chain[chain.index(node) :], node]}'
    if node not in floors:
      chain.append(node)
      floors[node] = 1 + max(map(floor, graph[node]), default=0)
      chain.pop()
    return floors[node]

  for node in graph:
    floor(node)
  return floors


def test_files_beside_the_wings_are_commands_or_have_a_row():
  for package, modules in _FILES.items():
    beside = {module for module in modules if '.' not in module} - {''}
    folders = {
      module for module in beside if modules[module].stem == '__init__'
    }
    assert beside - folders == {
      *_COMMANDS[package],
      *(name for name in _MAY_IMPORT[package] if name not in folders),
    }
    assert folders <= _MAY_IMPORT[package].keys()


@pytest.mark.parametrize(('package', 'module'), _EVERY_FILE)
def test_wing_imports_only_what_its_row_allows(package, module):
  wing = _wing(module)
  if wing == '' or wing in _COMMANDS[package]:
    pytest.skip('a command may import every wing')
  allowed = _MAY_IMPORT[package][wing].split()
  for other, target in _targets(package, module):
    if wing in _MAY_USE_FOLDER_SWAP and target.startswith('folder_swap'):
      assert other == 'tfds_lidc', target
    elif other != package:
      assert package == 'mtnet_jax' and wing in _MAY_USE_THE_DATASET, target
      assert target not in _COMMANDS[other], target
    elif target and _wing(target) != wing:
      assert any(f'{target}.'.startswith(f'{name}.') for name in allowed), (
        f'{package}.{module} imports {target}'
      )


def test_no_circle_of_files():
  """Chains of imports are limited too, so that a reader can follow them."""
  for package, modules in _FILES.items():
    graph = {
      module: {
        target
        for other, target in _targets(package, module)
        # Many modules import the package itself for its version. Its own
        # imports are inside functions, which a test below checks.
        if other == package and target not in ('', module)
      }
      for module in modules
      if module
    }
    assert max(_floors(graph).values()) <= 13


def test_no_circle_of_wings():
  for rows in _MAY_IMPORT.values():
    graph = {
      wing: {_wing(name) for name in names.split()}
      for wing, names in rows.items()
    }
    assert max(_floors(graph).values()) <= 7


def test_circle_is_found():
  with pytest.raises(AssertionError, match='circle'):
    _floors({'a': {'b'}, 'b': {'c'}, 'c': {'a'}})
  assert _floors({'a': {'b', 'c'}, 'b': {'c'}, 'c': set()}) == {
    'a': 3,
    'b': 2,
    'c': 1,
  }


def test_no_file_is_over_350_lines():
  """A file has one subject, also in tests and benchmarks."""
  for folder in (*_FILES, 'benchmarks', 'tests'):
    for path in (main_job.ROOT / folder).rglob('*.py'):
      assert len(path.read_text(encoding='utf-8').splitlines()) <= 350, path


def test_map_of_folders_in_the_docs_is_that_of_the_tree():
  page = (main_job.ROOT / 'docs' / 'architecture.md').read_text(
    encoding='utf-8'
  )
  folders = {
    package: {
      name for name in rows if (main_job.ROOT / package / name).is_dir()
    }
    for package, rows in _MAY_IMPORT.items()
  }
  ours, lidc, path = (
    page.partition(start)[2].partition(end)[0]
    for start, end in (
      ('## Folders', 'and beside them'),
      ('| folder of `tfds_lidc/`', 'Data flows'),
      ('Twelve files', '##'),
    )
  )
  for text, package in ((ours, 'mtnet_jax'), (lidc, 'tfds_lidc')):
    assert (
      set(re.findall(r'^\| `(\w+)/`', text, re.MULTILINE)) == (folders[package])
    )
    for file in re.findall(r'`([\w/]+\.py)` \|$', text, re.MULTILINE):
      assert (main_job.ROOT / package / file).exists(), file
  files = re.findall(r'^\d+\. `([\w/]+\.py)`', path, re.MULTILINE)
  assert len(files) == len(set(files)) == 12
  # Each file is imported by one that is read before it.
  modules = [file.removesuffix('.py').replace('/', '.') for file in files]
  assert modules[0] == 'main'
  for i, module in enumerate(modules[1:], 1):
    read = set().union(*(_targets('mtnet_jax', x) for x in modules[:i]))
    assert ('mtnet_jax', module) in read, module


@pytest.mark.parametrize('module', sorted(_FILES['mtnet_jax']))
def test_dataset_is_imported_only_inside_functions(module):
  for name in _imports_on_loading(_parse('mtnet_jax', module)):
    assert name.partition('.')[0] not in (
      'tfds_lidc',
      'tensorflow_datasets',
      'tensorflow',
      'pylidc',
      'pydicom',
    ), f'{module}: {name}'


@pytest.mark.parametrize('module', sorted(_FILES['tfds_lidc']))
def test_dataset_imports_neither_jax_nor_tensorflow(module):
  for name in _imports(_parse('tfds_lidc', module)):
    assert name.partition('.')[0] not in (
      'jax',
      'jaxlib',
      'flax',
      'optax',
      'orbax',
      'tensorflow',
      'mtnet_jax',
    ), f'{module}: {name}'


@pytest.mark.parametrize(
  'module',
  [m for m in sorted(_FILES['tfds_lidc']) if _wing(m) == 'folder_swap'],
)
def test_folder_swap_imports_only_the_standard_library(module):
  for name in _imports(_parse('tfds_lidc', module)):
    assert name.partition('.')[0] in sys.stdlib_module_names or name.startswith(
      'tfds_lidc.folder_swap'
    )


def test_parser_finds_every_kind_of_import():
  tree = ast.parse(
    'import a.b, c as d\n'
    'from e import f, g\n'
    'class K:\n  import h\n'
    'if d:\n  import i\n'
    'def k():\n  from j import l\n'
  )
  outside = {'a.b', 'c', 'e.f', 'e.g', 'h', 'i'}
  assert set(_imports_on_loading(tree)) == outside
  assert set(_imports(tree)) == outside | {'j.l'}
  layers = 'mtnet_jax', 'models.layers'
  assert _internal('mtnet_jax.models.layers') == layers
  assert _internal('mtnet_jax.models.layers.Conv') == layers
  assert _internal('mtnet_jax.ops') == ('mtnet_jax', 'ops')
  assert _internal('mtnet_jax.load') == ('mtnet_jax', '')
  assert _internal('numpy.random') is None


def test_imports_for_a_type_checker_do_not_run_on_loading():
  tree = ast.parse('if TYPE_CHECKING:\n  import a\nelse:\n  import b\n')
  assert set(_imports_on_loading(tree)) == {'b'}
  assert set(_imports(tree)) == {'a', 'b'}
