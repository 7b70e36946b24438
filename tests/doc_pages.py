"""Reads the documentation, and the commands and code in it."""

import re
import shlex

import main_job

README = 'README.md'
# Pages for users; the others are about how the project was made.
GUIDES = (
  README,
  'docs/training.md',
  'docs/data.md',
  'docs/predict.md',
  'docs/models.md',
  'docs/howto.md',
  'docs/development.md',
)
PAGES = tuple(
  sorted(
    [README, 'benchmarks/README.md']
    + ['CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']
    + [f'docs/{path.name}' for path in (main_job.ROOT / 'docs').glob('*.md')]
  )
)


def text(page):
  """Returns the content of a page."""
  return (main_job.ROOT / page).read_text(encoding='utf-8')


def section(page, title):
  """Returns the text below a title of the second level."""
  parts = re.split(r'^## (.*)\n', text(page), flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def titles(page):
  """Returns the anchors that GitHub makes of the titles of a page."""
  found = re.findall(r'^#+ (.*)$', text(page), re.MULTILINE)
  return {re.sub(r'[^\w -]', '', x).lower().replace(' ', '-') for x in found}


def commands(text):
  """Yields the arguments of each `python -m ...` in indented blocks."""
  blocks = re.findall(r'(?:^ {4}.*\n)+', text, re.MULTILINE)
  for line in ''.join(blocks).replace('\\\n', ' ').splitlines():
    command = line.partition('python -m ')[2]
    if command:
      yield shlex.split(command, comments=True)


def blocks(text, language='python'):
  """Returns the fenced blocks of a language."""
  return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)
