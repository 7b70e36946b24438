"""Reads tables as spreadsheets save them in any language.

Cells may be separated by commas, semicolons or tabs. Numbers may have a decimal
comma unless commas separate cells. The encoding may be UTF-8, UTF-16 or
Windows-1252, with any line ends.
"""

import codecs
import csv
import io
import os
import re

from mtnet_jax.system import errors

# Text in quotes or brackets, such as 'x (mm, RAS)', holds no delimiters.
_NO_DELIMITERS = re.compile(r'"[^"]*"|\([^)]*\)|\[[^\]]*\]')
_DECIMAL_COMMA = re.compile(r'[+-]?\d+,\d+([eE][+-]?\d+)?')


def decode(path: str | os.PathLike[str], data: bytes) -> str:
  """Decodes a text file, and converts its line ends to line feeds.

  Args:
    path: the file, for the message.
    data: content of the file.

  Raises:
    errors.InputError: the file is not text.
  """
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    encodings = ['utf-16']
  else:
    # Nearly any bytes are valid Windows-1252, so it comes last.
    encodings = ['utf-8-sig', 'cp1252']
  for encoding in encodings:
    try:
      text = data.decode(encoding)
    except UnicodeDecodeError:
      continue
    # Binary data can be valid Windows-1252, but usually contains zeros.
    if encoding == 'utf-8-sig' or '\0' not in text:
      return text.replace('\r\n', '\n').replace('\r', '\n')
  raise errors.InputError(f'{path} is not text: save it as CSV.')


def rows(path: str | os.PathLike[str], text: str) -> list[list[str]]:
  """Splits a table into rows, without the empty ones.

  Args:
    path: the file, for the message.
    text: from `decode`.

  Returns:
    Lists of cells, stripped of spaces, whose numbers have a decimal point.

  Raises:
    errors.InputError: the text is not a table.
  """
  first = _NO_DELIMITERS.sub('', text.lstrip('\n').partition('\n')[0])
  delimiter = max(',;\t', key=first.count)
  try:
    found = list(csv.reader(io.StringIO(text), delimiter=delimiter))
  except csv.Error as error:
    raise errors.InputError(
      f'{path} is not CSV ({error}): save it again.'
    ) from error
  found = [[cell.strip() for cell in row] for row in found]
  if delimiter != ',':
    found = [[_with_point(cell) for cell in row] for row in found]
  return [row for row in found if any(row)]


def _with_point(cell):
  """Replaces a decimal comma by a point; leaves other cells as they are."""
  return cell.replace(',', '.') if _DECIMAL_COMMA.fullmatch(cell) else cell
