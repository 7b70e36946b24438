"""The field's words, as a reader from any group expects them."""

import re

import main_job
import pytest

# What stands for it in this project says what to write.
_WORDS = {
  r'\b(givers?|speakers?)\b': 'upstream, outputs',
  r'\bhand(s|ed|ing)?_(on|over)\b': 'pass_..., dispatch',
  r'\bsettles?\b': 'wait, resolve',
  r'\bat_once\b': 'steps_per_call, batch_size',
  r'\bfewest\b': 'min_..., the smallest number',
  r'\bfresh(ly)?\b': 'init, newly_initialised, new',
  r'\bserve[sd]\b': 'handled, supports',
  r'\bbut for\b': 'except',
  r'\bwhatever\b': 'regardless of, any',
  r'\bwho waits\b': 'the caller',
  r'^\s*# Of (?!course)': 'a sentence with a subject and a verb',
  r'\b(said|told)(\(|\[|\.\w| = )': 'output, message',
}
_FILES = sorted(
  str(path.relative_to(main_job.ROOT))
  for pattern in (
    *(
      f'{folder}/**/*.{suffix}'
      for folder in (
        'mtnet_jax',
        'tfds_lidc',
        'configs',
        'benchmarks',
        'notebooks',
        'tests',
        'docs',
      )
      for suffix in ('py', 'md', 'cc', 'h', 'html')
    ),
    '*.md',
  )
  for path in main_job.ROOT.glob(pattern)
  # It holds the words themselves.
  if path.name != 'test_words.py'
)


@pytest.mark.parametrize('file', _FILES)
def test_no_word_of_a_dialect(file):
  text = (main_job.ROOT / file).read_text(encoding='utf-8')
  found = [
    f'{file}:{number}: {line.strip()}: write {better}'
    for number, line in enumerate(text.splitlines(), start=1)
    for word, better in _WORDS.items()
    if re.search(word, line)
  ]
  assert not found, '\n'.join(found)
