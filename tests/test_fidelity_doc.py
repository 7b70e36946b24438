"""docs/fidelity.md: its arithmetic is right, and what it names exists."""

import ast
import importlib
import operator
import re

import main_job
import project_configs
import pytest

from mtnet_jax.reports import paper

_PAGE = (main_job.ROOT / 'docs' / 'fidelity.md').read_text(encoding='utf-8')
_SPANS = [
  ' '.join(span.split())
  for span in re.findall(r'`([^`]+)`', _PAGE, flags=re.DOTALL)
]
_RELATION = re.compile(r'([\d .+*/()-]+) ([=<>]) (\d+(?:\.(\d+))?)')
_EQUATIONS = [span for span in _SPANS if _RELATION.fullmatch(span)]
_TESTS = [span for span in _SPANS if '::' in span]
_NAMES = [
  span
  for span in _SPANS
  if re.fullmatch(r'\w+(\.\w+)+', span) and not span.endswith('.py')
]
_OPERATORS = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
}


def calculate(text):
  def value(node):
    if isinstance(node, ast.BinOp):
      return _OPERATORS[type(node.op)](value(node.left), value(node.right))
    assert isinstance(node, ast.Constant), text
    return node.value

  return value(ast.parse(text, mode='eval').body)


def holds(equation):
  """Whether a relation is right to the digits that it states."""
  left, relation, right, decimals = _RELATION.fullmatch(equation).groups()
  found, stated = calculate(left), float(right)
  if relation == '=':
    return abs(found - stated) <= 0.5 * 10.0 ** -len(decimals or '') + 1e-9
  return found < stated if relation == '<' else found > stated


def test_every_equation_is_right():
  assert len(_EQUATIONS) > 30
  assert [x for x in _EQUATIONS if not holds(x)] == []


def test_a_wrong_equation_would_be_found():
  assert holds('100 * 1 / 3 = 33.3')
  assert not holds('100 * 1 / 3 = 33.4')
  assert not holds('2 > 3')


def test_every_name_exists():
  config = project_configs.CONFIGS.get_config()
  assert len(_NAMES) > 40
  for name in _NAMES:
    package, _, rest = name.partition('.')
    if package == 'config':
      place = config
      for key in rest.split('.'):
        assert key in place, name
        place = place[key]
    else:
      resolve(name if package == 'tfds_lidc' else f'mtnet_jax.{name}')


def resolve(name):
  """What a dotted name of a module, or of something in one, stands for."""
  parts = name.split('.')
  for count in range(len(parts), 0, -1):
    try:
      found = importlib.import_module('.'.join(parts[:count]))
    except ModuleNotFoundError:
      continue
    for part in parts[count:]:
      found = getattr(found, part)
    return found
  raise AssertionError(f'no module {name}')


def test_every_test_exists():
  assert len(_TESTS) > 20
  for name in _TESTS:
    file, function = name.split('::')
    text = (main_job.ROOT / 'tests' / file).read_text(encoding='utf-8')
    assert f'def {function}(' in text, name


def share_of_positives(row):
  """Bounds of what accuracy says about the share, given the rounding."""
  accuracy, recall, specificity = (
    1000 * row[key]
    for key in (
      'accuracy',
      'sensitivity' if 'sensitivity' in row else 'recall',
      'specificity',
    )
  )
  missing, apart = specificity - accuracy, specificity - recall
  return (missing - 1) / (apart + 1), (missing + 1) / (apart - 1)


def test_tables_of_one_test_set_ask_for_shares_that_differ():
  """Section 5, from the numbers that the reports print."""
  low, high = share_of_positives(paper.CLASSIFICATION)
  assert (low, high) == pytest.approx((0.219, 0.237), abs=5e-4)
  # The text's counts lie outside, whichever class is meant.
  assert not low < 1073 / 1543 < high
  assert not low < 470 / 1543 < high
  assert share_of_positives(paper.CLASSIFICATION_WITHOUT_COARSE)[0] > high
  coarse_low, _ = share_of_positives(paper.COARSE_SEGMENTATION)
  _, fine_high = share_of_positives(paper.FINE_SEGMENTATION)
  assert coarse_low > fine_high


def rounds_to(count, total, fraction):
  return abs(count / total - fraction) <= 0.0005 + 1e-9


def nodules_that_fit(row, total):
  """Counts (malignant, found, benign left alone) that round to a row."""
  return [
    (malignant, found, spared)
    for malignant in range(1, total)
    for found in range(malignant + 1)
    if rounds_to(found, malignant, row['sensitivity'])
    for spared in range(total - malignant + 1)
    if rounds_to(spared, total - malignant, row['specificity'])
    if rounds_to(found + spared, total, row['accuracy'])
  ]


@pytest.mark.parametrize('total', [308, 309])
def test_whole_nodules_fit_one_row_of_table_4_only(total):
  assert nodules_that_fit(paper.CLASSIFICATION_WITHOUT_COARSE, total) == []
  (only,) = nodules_that_fit(paper.CLASSIFICATION, total)
  assert only[:2] == (70, 57)
  assert total == 308 or only[2] == 227


@pytest.mark.parametrize(
  'row', [paper.COARSE_SEGMENTATION, paper.FINE_SEGMENTATION]
)
def test_each_jaccard_index_follows_from_its_dice(row):
  dice = row['dice']
  assert rounds_to(dice, 2 - dice, row['jaccard'])
