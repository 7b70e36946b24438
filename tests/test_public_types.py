"""Every public function of both packages says what it takes and returns."""

import ast

import main_job
import pytest

_FILES = sorted(
  str(path.relative_to(main_job.ROOT))
  for package in ('mtnet_jax', 'tfds_lidc')
  for path in (main_job.ROOT / package).rglob('*.py')
)


def _public_functions(body, owner=''):
  """Name and node of functions and methods without an underscore."""
  for node in body:
    if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
      yield from _public_functions(node.body, f'{node.name}.')
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      if not node.name.startswith('_') or node.name in ('__init__', '__call__'):
        yield owner + node.name, node


def _untyped(owner_and_name, function):
  """What of a function's signature has no type."""
  arguments = function.args
  positional = arguments.posonlyargs + arguments.args
  decorators = {ast.unparse(x) for x in function.decorator_list}
  if '.' in owner_and_name and 'staticmethod' not in decorators:
    positional = positional[1:]  # self, or the class
  every = positional + arguments.kwonlyargs
  every += [x for x in (arguments.vararg, arguments.kwarg) if x]
  untyped = [x.arg for x in every if x.annotation is None]
  if function.returns is None and function.name != '__init__':
    untyped.append('return')
  return untyped


@pytest.mark.parametrize('file', _FILES)
def test_public_functions_have_types(file):
  tree = ast.parse((main_job.ROOT / file).read_text(encoding='utf-8'))
  untyped = {
    name: missing
    for name, function in _public_functions(tree.body)
    if (missing := _untyped(name, function))
  }
  assert untyped == {}


def test_what_lacks_a_type_is_found():
  tree = ast.parse(
    'def f(a: int, b, *, c=1): ...\n'
    'def _private(a): ...\n'
    'class A:\n'
    '  def g(self) -> int: ...\n'
    '  def h(self, x) -> int: ...\n'
    '  def __init__(self, y): ...\n'
  )
  found = {name: _untyped(name, x) for name, x in _public_functions(tree.body)}
  assert found == {
    'f': ['b', 'c', 'return'],
    'A.g': [],
    'A.h': ['x'],
    'A.__init__': ['y'],
  }
