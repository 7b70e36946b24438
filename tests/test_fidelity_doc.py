"""The arithmetic of docs/fidelity.md is right, and the names in it exist."""

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
  """Returns whether a relation is right to the digits that it states."""
  left, relation, right, decimals = _RELATION.fullmatch(equation).groups()
  value, stated = calculate(left), float(right)
  if relation == '=':
    return abs(value - stated) <= 0.5 * 10.0 ** -len(decimals or '') + 1e-9
  return value < stated if relation == '<' else value > stated


def test_every_equation_is_right():
  assert len(_EQUATIONS) > 30
  assert [x for x in _EQUATIONS if not holds(x)] == []


def test_wrong_equation_is_found():
  assert holds('100 * 1 / 3 = 33.3')
  assert not holds('100 * 1 / 3 = 33.4')
  assert not holds('2 > 3')


def test_every_name_exists():
  config = project_configs.CONFIGS.get_config()
  assert len(_NAMES) > 40
  for name in _NAMES:
    package, _, rest = name.partition('.')
    if package == 'config':
      group = config
      for key in rest.split('.'):
        assert key in group, name
        group = group[key]
    else:
      resolve(name if package == 'tfds_lidc' else f'mtnet_jax.{name}')


def resolve(name):
  """Returns the module, or the object in a module, of a dotted name."""
  parts = name.split('.')
  for num_parts in range(len(parts), 0, -1):
    try:
      found = importlib.import_module('.'.join(parts[:num_parts]))
    except ModuleNotFoundError:
      continue
    for part in parts[num_parts:]:
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
  """Bounds of the share of malignant nodules that rounded metrics imply.

  With sensitivity r, specificity s and share p, the accuracy is
  a = p r + (1 - p) s, so p = (s - a) / (s - r).
  """
  accuracy, recall, specificity = (
    1000 * row[key]
    for key in (
      'accuracy',
      'sensitivity' if 'sensitivity' in row else 'recall',
      'specificity',
    )
  )
  # In thousandths, each metric is off by up to 0.5, each difference by up to 1.
  numerator, denominator = specificity - accuracy, specificity - recall
  return (numerator - 1) / (denominator + 1), (numerator + 1) / (
    denominator - 1
  )


def test_tables_of_one_test_set_imply_different_shares_of_positives():
  """Section 5, from the values of the paper in the reports."""
  low, high = share_of_positives(paper.CLASSIFICATION)
  assert (low, high) == pytest.approx((0.219, 0.237), abs=5e-4)
  # The counts in the paper's text are outside the bounds for either class.
  assert not low < 1073 / 1543 < high
  assert not low < 470 / 1543 < high
  assert share_of_positives(paper.CLASSIFICATION_WITHOUT_COARSE)[0] > high
  coarse_low, _ = share_of_positives(paper.COARSE_SEGMENTATION)
  _, fine_high = share_of_positives(paper.FINE_SEGMENTATION)
  assert coarse_low > fine_high


def rounds_to(count, total, fraction):
  return abs(count / total - fraction) <= 0.0005 + 1e-9


def counts_that_round_to(row, total):
  """Returns all (malignant, true positives, true negatives) that fit a row."""
  return [
    (malignant, true_positives, true_negatives)
    for malignant in range(1, total)
    for true_positives in range(malignant + 1)
    if rounds_to(true_positives, malignant, row['sensitivity'])
    for true_negatives in range(total - malignant + 1)
    if rounds_to(true_negatives, total - malignant, row['specificity'])
    if rounds_to(true_positives + true_negatives, total, row['accuracy'])
  ]


@pytest.mark.parametrize('total', [308, 309])
def test_whole_nodules_fit_one_row_of_table_4_only(total):
  assert counts_that_round_to(paper.CLASSIFICATION_WITHOUT_COARSE, total) == []
  (only,) = counts_that_round_to(paper.CLASSIFICATION, total)
  assert only[:2] == (70, 57)
  assert total == 308 or only[2] == 227


@pytest.mark.parametrize(
  'row', [paper.COARSE_SEGMENTATION, paper.FINE_SEGMENTATION]
)
def test_each_jaccard_index_follows_from_its_dice(row):
  dice = row['dice']
  assert rounds_to(dice, 2 - dice, row['jaccard'])
