"""Random damage to files: to their bytes, and to JSON and CSV.

A case is a set of files that a stranger might send, relative path -> bytes. All
functions draw from a `random.Random`, so a seed reproduces a case exactly.
"""

import copy
import csv
import io
import json
import random
import struct

_LONG = 'A' * 70_000
# Texts that are special in HTML, spreadsheets, shells or paths.
HOSTILE_TEXTS = (
  '',
  ' ',
  '\0',
  '\x1b[31m',
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  '=HYPERLINK("http://x","y")',
  '+1+cmd|calc!A0',
  '../../../etc/passwd',
  '/etc/passwd',
  'C:\\x',
  'a\nb',
  '$\\frac{$',
  '{0.__class__}',
  '%s%n',
  '\ud7ff\uffff',
  '‮٣',
  'nan',
  '-inf',
  '1e999',
  '-1',
  '0',
  '1e-320',
  '1_0',
  '9' * 400,
  '9' * 5000,
  'True',
  _LONG,
)
HOSTILE_VALUES = (
  None,
  True,
  False,
  0,
  -1,
  1,
  0.5,
  10**9,
  2**63,
  -(10**30),
  10**400,
  float('nan'),
  float('inf'),
  -float('inf'),
  1e308,
  [],
  {},
  [[]],
  [1],
  [float('nan')],
  [10**9] * 3,
  {'': None},
  {'value': 1, 'ci95': None},
)
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def damage(rng: random.Random, data: bytes, other: bytes = b'') -> bytes:
  """Applies one to four random changes, such as flips, cuts and splices.

  Args:
    rng: source of randomness.
    data: content of a file.
    other: another content, which splices take parts of.

  Returns:
    The damaged content.
  """
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    data = rng.choice(_CHANGES)(rng, data, other)
  return data


def _flip(rng, data, other):
  del other
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 8, 32)) if data else 0):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  return bytes(data)


def _overwrite(rng, data, other):
  del other
  at = rng.randrange(len(data) + 1)
  size = rng.choice((1, 2, 4, 8, 64))
  return data[:at] + rng.randbytes(size) + data[at + size :]


def _truncate(rng, data, other):
  del other
  return data[: rng.randrange(len(data) + 1)]


def _splice(rng, data, other):
  return (
    data[: rng.randrange(len(data) + 1)]
    + other[rng.randrange(len(other) + 1) :]
  )


def _repeat(rng, data, other):
  del other
  at, size = rng.randrange(len(data) + 1), rng.choice((1, 8, 128))
  return data[:at] + data[at : at + size] * rng.choice((2, 50)) + data[at:]


def _remove(rng, data, other):
  del other
  at = rng.randrange(len(data) + 1)
  return data[:at] + data[at + rng.choice((1, 2, 8, 128)) :]


def _blow_up(rng, data, other):
  """Overwrites bytes that may be a length with an extreme number."""
  del other
  form = rng.choice(('<H', '>H', '<L', '>L', '<Q'))
  size = struct.calcsize(form)
  value = rng.choice(_LENGTHS) & (256**size - 1)
  at = rng.randrange(max(len(data) - size, 0) + 1)
  return data[:at] + struct.pack(form, value) + data[at + size :]


_CHANGES = (_flip, _flip, _overwrite, _truncate, _splice, _repeat, _remove)
_CHANGES += (_blow_up, _blow_up)


def damage_json(rng: random.Random, data: bytes) -> bytes:
  """Changes values; removes, copies and renames keys; may give invalid JSON."""
  kind = rng.random()
  if kind < 0.1:
    return damage(rng, data, data)
  if kind < 0.12:
    return b'[' * 100_000
  tree = json.loads(data)
  if not isinstance(tree, (dict, list)):
    return damage(rng, data, data)
  for _ in range(rng.choice((1, 1, 2, 3))):
    holder, key = _choose_entry(rng, tree)
    if holder is None:
      tree = hostile(rng)
      break
    else:
      _damage_entry(rng, holder, key)
  return json.dumps(tree).encode('utf-8', 'replace')


def _choose_entry(rng, tree):
  """Returns a random (container, key); rarely (None, None) for the whole."""
  entries = [(None, None)]
  pending = [tree]
  while pending:
    node = pending.pop()
    keys = node if isinstance(node, dict) else range(len(node))
    for key in keys:
      entries.append((node, key))
      if isinstance(node[key], (dict, list)):
        pending.append(node[key])
  if rng.random() <= 0.02:
    return entries[0]
  return rng.choice(entries[1:] or entries)


def _damage_entry(rng, holder, key):
  kind = rng.random()
  if kind < 0.15:
    del holder[key]
  elif kind < 0.25 and isinstance(holder, dict):
    holder[rng.choice(HOSTILE_TEXTS)] = copy.deepcopy(holder[key])
  else:
    holder[key] = hostile(rng)


def hostile(rng):
  """Returns a value that no reader expects."""
  if rng.random() < 0.3:
    return rng.choice(HOSTILE_TEXTS)
  return copy.deepcopy(rng.choice(HOSTILE_VALUES))


def damage_csv(rng: random.Random, data: bytes) -> bytes:
  """Changes cells, and removes, copies and renames columns and rows."""
  if rng.random() < 0.15:
    return damage(rng, data, data)
  rows = list(csv.reader(io.StringIO(data.decode())))
  for _ in range(rng.choice((1, 1, 2, 5))):
    row = rng.choice(rows) if rows else []
    kind = rng.randrange(9)
    if kind == 0 and rows:
      rows.remove(row)
    elif kind == 1:
      rows.insert(rng.randrange(len(rows) + 1), list(row))
    elif kind == 2 and row:
      del row[rng.randrange(len(row))]
    elif kind == 3 and rows and rows[0]:
      column = rng.randrange(len(rows[0]))
      for cells in rows:
        cells[column : column + 1] = cells[column : column + 1] * rng.choice(
          (0, 2)
        )
    elif kind == 4 and row:
      row[rng.randrange(len(row))] = str(hostile(rng))[:5000]
    elif row:
      row[rng.randrange(len(row))] = rng.choice(HOSTILE_TEXTS)
  text = io.StringIO()
  csv.writer(text, lineterminator=rng.choice(('\n', '\r\n'))).writerows(rows)
  return text.getvalue().encode('utf-8', 'replace')


def damage_case(
  rng: random.Random, case: dict[str, bytes], other: dict[str, bytes]
) -> dict[str, bytes]:
  """Damages or removes one or two files of a case, each by its format."""
  case = dict(case)
  for name in rng.sample(sorted(case), min(len(case), rng.choice((1, 1, 2)))):
    if rng.random() < 0.03:
      del case[name]
    elif name.endswith('.json'):
      case[name] = damage_json(rng, case[name])
    elif name.endswith('.csv'):
      case[name] = damage_csv(rng, case[name])
    else:
      donor = other.get(name) or rng.choice(list(other.values()))
      case[name] = damage(rng, case[name], donor)
  return case
