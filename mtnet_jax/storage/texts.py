"""Texts of runs and bundles, which anyone may have written and somebody reads.

They reach pages, cards, tables and terminals: a control character would act
there, and megabytes would bury the rest.
"""

import re

from mtnet_jax.system import errors

MAX_NAME = 64
# As the Hub calls a licence of which nothing is known.
UNKNOWN_LICENSE = 'unknown'
_LICENSE = re.compile(r'[a-z0-9][a-z0-9.-]{0,39}')
# Between its two lines stands what the Hub reads.
_FRONT_MATTER = re.compile(r'---\n.*?\n---\n+', re.DOTALL)
_NAME = re.compile(rf'[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}')
_MAX_TEXT = 4096
_MAX_CARD = 1 << 20
# Paths of the machine that trained; names of files may be of any bytes. By
# their whole keys, since the same word elsewhere is any text.
_PATHS = (
  'dataset.data_dir',
  'start_from',
  'pretrained.segmentation',
  'pretrained.classification',
  'members.workdir',
)
# A paragraph, of which a card joins the lines.
_PARAGRAPHS = ('note',)


def is_name(value):
  """Whether a value can be the name of a model: a short, printable word."""
  return isinstance(value, str) and _NAME.fullmatch(value) is not None


def as_name(text):
  """A model's name made of the name of its folder, which may be any text."""
  name = re.sub('[^A-Za-z0-9._-]+', '-', text).lstrip('.-')[:MAX_NAME]
  return name or 'model'


def check_name(value, where):
  """Raises `errors.InputError` where a value is no name of a model."""
  if not is_name(value):
    raise errors.InputError(
      f'{where}: {str(value)[:40]!r} is no name of a model: it must be at most'
      f' {MAX_NAME} letters of A-Z, a-z, 0-9, ".", "_" and "-".'
    )


def check_license(value, where):
  """Raises `errors.InputError` where a value is no identifier of a licence."""
  if not isinstance(value, str) or not _LICENSE.fullmatch(value):
    raise errors.InputError(
      f'{where}: {str(value)[:40]!r} is no licence of the Hugging Face Hub: it'
      ' must be at most 40 of a-z, 0-9, "." and "-", such as apache-2.0, other'
      f' or {UNKNOWN_LICENSE}.'
    )


def check_tree(tree, where, *, key=''):
  """Raises `errors.InputError` where a text in a tree cannot be shown.

  Args:
    tree: of JSON.
    where: the file, for messages.
    key: dotted, under which the tree stands in the file.
  """
  if isinstance(tree, dict):
    for name, value in tree.items():
      _check(name, where, key)
      check_tree(value, where, key=f'{key}.{name}' if key else name)
  elif isinstance(tree, list):
    for value in tree:
      check_tree(value, where, key=key)
  elif isinstance(tree, str) and key not in _PATHS:
    _check(' '.join(tree.split()) if key in _PARAGRAPHS else tree, where, key)


def check_types(tree, types, where):
  """Raises `errors.InputError` where a value is not of its type.

  Args:
    tree: a dict.
    types: key -> (type, what it is called); a key may be missing.
    where: the file, for messages.
  """
  for key, (kind, called) in types.items():
    # True is an int to Python, and no number to a reader.
    if key in tree and type(tree[key]) is not kind:
      raise errors.InputError(
        f'{where} is damaged: its {key} must be {called}.'
      )


def check_card(card, where):
  """Raises `errors.InputError` where a model card cannot be shown as text."""
  if len(card) > _MAX_CARD or not card.replace('\n', '').isprintable():
    raise errors.InputError(
      f'{where} is no model card: it must be of printable characters, at most'
      f' {_MAX_CARD >> 20} MiB. Get the bundle again.'
    )


def without_front_matter(card):
  """A model card as people read it; one of an earlier version has none."""
  found = _FRONT_MATTER.match(card)
  return card[found.end() :] if found else card


def _check(text, where, key):
  if len(text) > _MAX_TEXT or not text.isprintable():
    raise errors.InputError(
      f'{where} has a text of {len(text)} characters'
      f'{f" in its {key[:40]}" if key else ""} that cannot be shown: it must be'
      f' printable, at most {_MAX_TEXT} characters.'
    )
