"""The guards that `faults/mutants.py` removes are in the source."""

import argparse
import shlex

from faults import guard as guard_lib
from faults import guards
from faults import mutants
import main_job
import pytest


def files_and_words(arguments):
  """Returns the files of tests, and what `-k` selects in them."""
  parser = argparse.ArgumentParser()
  parser.add_argument('files', nargs='+')
  parser.add_argument('-k', default='')
  parsed = parser.parse_args(shlex.split(arguments))
  return *parsed.files, parsed.k


@pytest.mark.parametrize(
  'guard', guards.GUARDS, ids=lambda g: f'{g.file}:{g.text.strip()[:30]}'
)
def test_guard_occurs_once_in_its_file(guard):
  source = (main_job.ROOT / guard.file).read_text(encoding='utf-8')
  assert source.count(guard.text) == 1
  changed = source.replace(guard.text, guard.without)
  compile(changed, guard.file, 'exec')
  *files, words = files_and_words(guard.tests)
  text = ''.join((main_job.ROOT / f).read_text('utf-8') for f in files)
  # A name of a test, or a value that one is parametrised with.
  assert all(word in text for word in words.split(' or '))


def test_guard_that_no_test_needs_is_found(tmp_path):
  (tmp_path / 'one.py').write_text('LIMIT = 3\n')
  (tmp_path / 'test_one.py').write_text(
    'import one\n'
    'def test_watched():\n  assert one.LIMIT == 3\n'
    'def test_blind():\n  assert one.LIMIT\n'
  )

  def result_without(tests):
    guard = guard_lib.Guard('one.py', '3', '4', tests)
    return mutants.mutate(tmp_path, guard)

  assert result_without('test_one.py') == 'fail'
  assert result_without('test_one.py -k blind') == 'pass'
  assert result_without('test_one.py -k none') == 'pytest ends with 5'
  assert (tmp_path / 'one.py').read_text() == 'LIMIT = 3\n'
