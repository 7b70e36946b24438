"""Text of table cells, and rows of a CSV file."""

import pytest

from mtnet_jax.reports import tables

_HALF = {'value': 0.5, 'ci95': [0.25, 0.75]}
_NOTHING = {'value': None, 'ci95': None}


@pytest.mark.parametrize(
  'cell, form, kind, text',
  (
    (_HALF, 'percent', 'nodules', '50.0 (25.0-75.0)'),
    (_HALF, 'percent', 'difference', '+50.0 (+25.0 to +75.0)'),
    (_HALF, 'fraction', 'nodules', '0.500 (0.250-0.750)'),
    (_HALF, 'fraction', 'difference', '+0.500 (+0.250 to +0.750)'),
    ({'value': 0.5, 'ci95': None}, 'fraction', 'nodules', '0.500'),
    (_NOTHING, 'percent', 'nodules', 'n/a'),
    (_NOTHING, 'percent', 'paper', '-'),
    (None, 'percent', 'nodules', 'not run'),
    (7, 'plain', 'nodules', '7'),
    (None, 'plain', 'nodules', ''),
  ),
)
def test_texts(cell, form, kind, text):
  column = tables.Column('x', 'X', form)
  row = tables.Row('r', [cell], kind)
  table = tables.Table('t', 'T', [column], [row])
  assert tables.texts(table, row) == [text]


def test_csv_rows():
  table = tables.Table(
    't',
    'T',
    [
      tables.Column('n', 'N', 'plain'),
      tables.Column('dice', 'DI'),
    ],
    [
      tables.Row('ours', [3, _HALF], 'nodules'),
      tables.Row('theirs', [4, {'value': 0.5, 'ci95': None}], 'paper'),
      tables.Row('absent', [], 'missing', 'make it'),
    ],
  )
  assert tables.csv_rows(table, simulated=True) == [
    {
      'row': 'ours',
      'kind': 'nodules',
      'simulated': True,
      'n': 3,
      'dice': 0.5,
      'dice_low': 0.25,
      'dice_high': 0.75,
    },
    {
      'row': 'theirs',
      'kind': 'paper',
      'simulated': False,
      'n': 4,
      'dice': 0.5,
      'dice_low': None,
      'dice_high': None,
    },
    {
      'row': 'absent',
      'kind': 'missing',
      'simulated': True,
      'command': 'make it',
    },
  ]
