"""Tests that docs/results.md follows from the numbers in docs/results."""

import re

import main_job

from benchmarks.results import gather
from benchmarks.results import page

_DOCS = main_job.ROOT / 'docs'
_NUMBER = re.compile(r'(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?')


def _parts(text):
  """Returns the words, with # for numbers, and (number, unit of last digit)."""
  numbers = [
    (float(x), 10.0 ** -len(x.partition('.')[2]))
    for x in (found.replace(',', '') for found in _NUMBER.findall(text))
  ]
  return _NUMBER.sub('#', text).split(), numbers


def differences(text, other):
  """Returns where two pages differ by more than a unit of the last digit."""
  (words, numbers), (other_words, other_numbers) = _parts(text), _parts(other)
  found = [
    pair for pair in zip(words, other_words, strict=False) if len({*pair}) > 1
  ]
  found += [
    (ours, theirs)
    for (ours, unit), (theirs, _) in zip(numbers, other_numbers, strict=False)
    # Another machine may round differently.
    if abs(ours - theirs) > 1.01 * unit * (unit < 1)
  ]
  if len(words) != len(other_words) or len(numbers) != len(other_numbers):
    found.append((len(words), len(other_words)))
  return found


def test_the_page_follows_from_the_numbers(tmp_path):
  records, made = gather.read(_DOCS / 'results')
  for picture in (_DOCS / 'results').glob('examples.png'):
    (tmp_path / picture.name).touch()
  text = page.render(records, made, tmp_path)
  assert differences((_DOCS / 'results.md').read_text('utf-8'), text) == []
  drawn = {path.name for path in tmp_path.iterdir()}
  assert drawn == {path.name for path in (_DOCS / 'results').glob('*.png')}


def test_differences_of_pages():
  assert (
    differences('DI 88.1 (87.3-88.9), holds', 'DI 88.2 (87.3-88.9), holds')
    == []
  )
  assert differences('DI 88.1, holds', 'DI 88.3, holds') == [(88.1, 88.3)]
  assert differences('DI 88.1, holds', 'DI 88.1, undecided')
  assert differences('1,234 parameters', '1,235 parameters') == [(1234, 1235)]
  assert differences('a rate of 0.001', 'a rate of 0.003')
  assert differences('a 1', 'a 1 2')
