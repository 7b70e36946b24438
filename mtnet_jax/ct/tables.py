"""Tables as spreadsheets save them, whatever the language of the computer.

Commas, semicolons or tabs between cells; a decimal comma where no cell is
separated by one; UTF-8, UTF-16 or a Windows code page; any line ends.
"""

import codecs
import csv
import io
import re

from mtnet_jax.system import errors

# 'x (mm, RAS)', and what is quoted.
_NO_DELIMITERS = re.compile(r'"[^"]*"|\([^)]*\)|\[[^\]]*\]')
_DECIMAL_COMMA = re.compile(r'[+-]?\d+,\d+([eE][+-]?\d+)?')


def decode(path, data):
  """Bytes of a text file as text, with `\\n` at the ends of lines.

  Args:
    path: for the message.
    data: the bytes.

  Raises:
    errors.InputError: they are no text.
  """
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    encodings = ('utf-16',)
  else:
    # Every byte is a character of Windows-1252, but for five.
    encodings = ('utf-8-sig', 'cp1252')
  for encoding in encodings:
    try:
      text = data.decode(encoding)
    except UnicodeDecodeError:
      continue
    # As Windows-1252 nearly all bytes are text; a zero tells that they are not.
    if encoding == 'utf-8-sig' or '\0' not in text:
      return text.replace('\r\n', '\n').replace('\r', '\n')
  raise errors.InputError(f'{path} is no text: save it as CSV.')


def rows(path, text):
  """The rows of a table that have any cell.

  Args:
    path: for the message.
    text: of `decode`.

  Returns:
    A list of rows, each a list of cells without blanks around them, numbers
    with a point.

  Raises:
    errors.InputError: it is no table.
  """
  first = _NO_DELIMITERS.sub('', text.lstrip('\n').partition('\n')[0])
  delimiter = max(',;\t', key=first.count)
  try:
    found = list(csv.reader(io.StringIO(text), delimiter=delimiter))
  except csv.Error as error:
    raise errors.InputError(f'{path} is no CSV: {error}.') from error
  found = [[cell.strip() for cell in row] for row in found]
  if delimiter != ',':
    found = [[_with_point(cell) for cell in row] for row in found]
  return [row for row in found if any(row)]


def _with_point(cell):
  """A number with a decimal comma, with a point; others as they are."""
  return cell.replace(',', '.') if _DECIMAL_COMMA.fullmatch(cell) else cell
