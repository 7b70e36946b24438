"""Checks texts of runs and bundles, which anyone may have written.

The texts reach pages, cards, tables and terminals. A control character would
take effect there, and megabytes of text would hide everything else.
"""

from collections.abc import Mapping
import os
import re
from typing import Any

from mtnet_jax.system import errors

MAX_NAME = 64
# The Hugging Face Hub's identifier of an unknown licence.
UNKNOWN_LICENSE = 'unknown'
_LICENSE = re.compile(r'[a-z0-9][a-z0-9.-]{0,39}')
# YAML between two lines of dashes, which the Hub reads.
_FRONT_MATTER = re.compile(r'---\n.*?\n---\n+', re.DOTALL)
_NAME = re.compile(rf'[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}')
_MAX_TEXT = 4096
_MAX_CARD = 1 << 20
# Paths on the machine that trained, which may have any characters. Keys are
# complete, since other keys that end in the same word hold ordinary text.
_PATHS = (
  'dataset.data_dir',
  'start_from',
  'pretrained.segmentation',
  'pretrained.classification',
  'members.workdir',
)
# Keys of paragraphs; a card joins their lines.
_PARAGRAPHS = ('note',)


def is_name(value: object) -> bool:
  """Returns whether a value is a valid model name: a short, printable word."""
  return isinstance(value, str) and _NAME.fullmatch(value) is not None


def as_name(text: str) -> str:
  """Turns the name of a folder, which may be any text, into a model name."""
  name = re.sub('[^A-Za-z0-9._-]+', '-', text).lstrip('.-')[:MAX_NAME]
  return name or 'model'


def check_name(value: object, where: str | os.PathLike[str]) -> None:
  """Raises `errors.InputError` if a value is not a valid model name."""
  if not is_name(value):
    raise errors.InputError(
      f'{where}: {str(value)[:40]!r} is not a model name: it must be at most'
      f' {MAX_NAME} characters of A-Z, a-z, 0-9, ".", "_" and "-".'
    )


def check_license(value: object, where: str | os.PathLike[str]) -> None:
  """Raises `errors.InputError` if a value is not a licence identifier."""
  if not isinstance(value, str) or not _LICENSE.fullmatch(value):
    raise errors.InputError(
      f'{where}: {str(value)[:40]!r} is not a licence identifier of the Hugging'
      ' Face Hub: it must be at most 40 characters of a-z, 0-9, "." and "-",'
      f' such as apache-2.0, other or {UNKNOWN_LICENSE}.'
    )


def check_tree(
  tree: object, where: str | os.PathLike[str], *, key: str = ''
) -> None:
  """Raises `errors.InputError` if a text in a JSON tree cannot be shown.

  Args:
    tree: the tree, or a part of it.
    where: the file, for messages.
    key: dotted key of the tree in the file.
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


def check_types(
  tree: Mapping[str, Any],
  types: Mapping[str, tuple[type, str]],
  where: str | os.PathLike[str],
) -> None:
  """Raises `errors.InputError` if a value is not of its type.

  Args:
    tree: values by key.
    types: key -> (type, description of the type); `tree` may lack the key.
    where: the file, for messages.
  """
  for key, (kind, called) in types.items():
    # Not `isinstance`, which takes True for an int.
    if key in tree and type(tree[key]) is not kind:
      raise errors.InputError(
        f'{where} is damaged: its {key} must be {called}.'
      )


def check_card(card: str, where: str | os.PathLike[str]) -> None:
  """Raises `errors.InputError` if a model card cannot be shown as text."""
  if len(card) > _MAX_CARD or not card.replace('\n', '').isprintable():
    raise errors.InputError(
      f'{where} is not a model card: it must be printable text of at most'
      f' {_MAX_CARD >> 20} MiB. Get the bundle again.'
    )


def without_front_matter(card: str) -> str:
  """Returns a model card without the YAML at its beginning, if it has any."""
  found = _FRONT_MATTER.match(card)
  return card[found.end() :] if found else card


def _check(text, where, key):
  if len(text) > _MAX_TEXT or not text.isprintable():
    raise errors.InputError(
      f'{where} has a text of {len(text)} characters'
      f'{f" in its {key[:40]}" if key else ""} that cannot be shown: it must be'
      f' printable and have at most {_MAX_TEXT} characters.'
    )
