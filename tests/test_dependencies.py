"""Imports point only downwards."""

import ast
import configparser
import pathlib
import subprocess
import sys

from packaging import requirements
import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# A module imports from lower levels only, never from its own. A new file
# needs a place here.
_LEVELS = (
  # The package itself holds its version, and `load` lazily.
  (
    '__init__',
    'dtypes',
    'errors',
    'hdf5_weights',
    'models.__init__',
    'by_platform',
    'native.__init__',
    'windows',
    'xla_conv',
  ),
  ('compilation_cache', 'kernel_gradient', 'winograd'),
  ('native.library',),
  ('depthwise', 'few_channels', 'sums'),
  ('ops',),
  (
    'augment',
    'bootstrap',
    'calibration',
    'checkpoint',
    'command_line',
    'ct_geometry',
    'dataset_names',
    'files',
    'folded',
    'fresh',
    'host_memory',
    'losses',
    'measure',
    'metrics',
    'optim',
    'paper',
    'parallel',
    'processes',
    'remote',
    'run_lock',
    'size_limits',
    'stopping',
    'strategies',
    'weight_files',
    'weight_names',
  ),
  (
    'calls',
    'ct_volume',
    'dicom_seg',
    'exchange',
    'models.batch_norm',
    'nifti',
    'pace',
    'points',
    'pooling',
    'reader_agreement',
    'scores',
    'tables',
    'weight_sources',
  ),
  (
    'averaging',
    'card',
    'ct_series',
    'examples',
    'figures',
    'models.layers',
    'overlays',
    'result_table',
    'subgroups',
    'sweep_statistics',
    'targets',
    'walk',
  ),
  (
    'example_figure',
    'malignancy_figures',
    'models.xception',
    'nodule_figures',
    'nodule_records',
    'paper_tables',
    'sweep_figures',
    'training_figures',
  ),
  ('models.deeplab', 'input_pipeline', 'result_tables'),
  ('models.mtnet',),
  ('models.baselines', 'models.joint'),
  ('feeding', 'report_page', 'stages', 'weight_matching'),
  ('check_config', 'inference', 'pretrained', 'step', 'workdir'),
  (
    'finished_run',
    'initial_weights',
    'members',
    'model',
    'progress',
    'sweep_plan',
  ),
  ('ensemble',),
  ('bundle', 'comparisons', 'sweep_report'),
  ('export',),
  ('train', 'evaluate'),
  ('report',),
  ('run',),
  ('main', 'predict', 'sweep'),
)
_LEVEL_OF = {
  module: level for level, modules in enumerate(_LEVELS) for module in modules
}
# Upwards, but inside functions: who imports the module pays nothing.
_LAZY = {('__init__', 'bundle')}


def _files(package):
  """Dotted name below the package -> file."""
  directory = _ROOT / package
  return {
    '.'.join(path.relative_to(directory).with_suffix('').parts): path
    for path in sorted(directory.rglob('*.py'))
  }


def _imports(tree):
  """Full dotted names that a syntax tree imports, wherever it does."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute'
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def _imports_on_loading(tree):
  """Those outside functions, which importing the module runs."""
  functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
  pending = [tree]
  while pending:
    node = pending.pop()
    if isinstance(node, functions):
      continue
    if isinstance(node, (ast.Import, ast.ImportFrom)):
      yield from _imports(node)
    pending.extend(ast.iter_child_nodes(node))


def _internal(name):
  """The module of mtnet_jax that an import reaches, or None."""
  package, _, module = name.partition('.')
  if package != 'mtnet_jax':
    return None
  if module in _LEVEL_OF:
    return module
  # A name inside a module, a folder, or a name of the package itself.
  parent = module.rpartition('.')[0]
  if parent in _LEVEL_OF:
    return parent
  if f'{module}.__init__' in _LEVEL_OF:
    return f'{module}.__init__'
  exists = (_ROOT / 'mtnet_jax' / f'{module.replace(".", "/")}.py').exists()
  return module if exists else '__init__'


def _parse(path):
  return ast.parse(path.read_text(encoding='utf-8'), str(path))


def test_every_module_has_one_level():
  listed = [module for modules in _LEVELS for module in modules]
  assert len(listed) == len(set(listed))
  assert set(_files('mtnet_jax')) == set(listed)


@pytest.mark.parametrize('module', sorted(_files('mtnet_jax')))
def test_imports_point_downwards(module):
  for name in _imports(_parse(_files('mtnet_jax')[module])):
    target = _internal(name)
    if target is not None and (module, target) not in _LAZY:
      assert target in _LEVEL_OF, f'{module} imports unknown {name}'
      assert _LEVEL_OF[target] < _LEVEL_OF[module], f'{module}: {name}'


@pytest.mark.parametrize('module', sorted(_files('mtnet_jax')))
def test_the_dataset_is_imported_inside_functions_only(module):
  for name in _imports_on_loading(_parse(_files('mtnet_jax')[module])):
    assert name.partition('.')[0] not in (
      'tfds_lidc',
      'tensorflow_datasets',
      'tensorflow',
      'pylidc',
      'pydicom',
    ), f'{module}: {name}'


@pytest.mark.parametrize('module', sorted(_files('tfds_lidc')))
def test_the_dataset_knows_no_jax_and_no_tensorflow(module):
  for name in _imports(_parse(_files('tfds_lidc')[module])):
    assert name.partition('.')[0] not in (
      'jax',
      'jaxlib',
      'flax',
      'optax',
      'orbax',
      'tensorflow',
      'mtnet_jax',
    ), f'{module}: {name}'


def test_the_parser_sees_every_kind_of_import():
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
  assert _internal('mtnet_jax.models.layers') == 'models.layers'
  assert _internal('mtnet_jax.models.layers.Conv') == 'models.layers'
  assert _internal('mtnet_jax.ops') == 'ops'
  assert _internal('mtnet_jax.load') == '__init__'
  assert _internal('numpy.random') is None


@pytest.mark.parametrize(('module', 'target'), sorted(_LAZY))
def test_lazy_imports_do_not_run_on_loading(module, target):
  tree = _parse(_files('mtnet_jax')[module])
  assert target in set(map(_internal, _imports(tree)))
  assert target not in set(map(_internal, _imports_on_loading(tree)))


_DATASET = (
  'tfds_lidc',
  'tensorflow_datasets',
  'tensorflow',
  'pylidc',
  'pydicom',
)


@pytest.mark.parametrize(
  ('modules', 'unwanted'),
  [
    (('mtnet_jax.inference', 'mtnet_jax.input_pipeline'), _DATASET),
    # They take seconds that not everyone needs, or not before bad input.
    (('mtnet_jax.predict',), (*_DATASET, 'jax', 'sklearn', 'highdicom')),
    (('mtnet_jax.bundle',), (*_DATASET, 'orbax', 'sklearn', 'matplotlib')),
  ],
)
def test_modules_load_without_what_is_needed_later(modules, unwanted):
  code = (
    f'import sys, {", ".join(modules)}\n'
    f'print(*{set(unwanted)} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert not done.stdout.strip()


def _required():
  """The requirements of setup.cfg, without those of extras but `test`."""
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  lines = (
    config['options']['install_requires']
    + config['options.extras_require']['test']
  ).splitlines()
  return {
    requirement.name: requirement.specifier
    for requirement in map(
      requirements.Requirement,
      (line for line in lines if line and not line.startswith('#')),
    )
  }


def _pinned(path):
  """Name -> version of a file of NAME==VERSION."""
  return dict(
    line.split('==')
    for line in (_ROOT / path).read_text().splitlines()
    if not line.startswith('#')
  )


def test_the_lowest_versions_are_the_lower_bounds():
  lowest = {
    name: bound.version
    for name, specifier in _required().items()
    for bound in specifier
    if bound.operator in ('>=', '==')
  }
  assert _pinned('.ci/lowest.txt') == lowest
  assert lowest.keys() == _required().keys()


def test_the_lock_file_is_within_the_bounds():
  locked = {
    name.lower().replace('_', '-'): version
    for name, version in _pinned('requirements.lock').items()
  }
  for name, specifier in _required().items():
    assert locked[name.lower().replace('_', '-')] in specifier, name
