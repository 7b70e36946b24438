"""Results as text; numbers are derived by hand."""

import pytest

from mtnet_jax.reports import tables
from mtnet_jax.reports import text as text_lib


def estimate(value, low=None, high=None):
  return {'value': value, 'ci95': None if low is None else [low, high]}


def _tree(columns, value):
  return {key: estimate(value) for key, *_ in columns}


@pytest.fixture
def summary():
  segmentation = {
    name: {
      **_tree(tables.SEGMENTATION, value),
      'pooled': _tree(tables.SEGMENTATION, value - 0.1),
    }
    for name, value in (('coarse', 0.5), ('fine', 0.75))
  }
  segmentation['coarse']['dice'] = estimate(0.6666, 0.5, 0.80049)
  segmentation['fine_minus_coarse'] = _tree(tables.SEGMENTATION, 0.25)
  return {
    'nodules': 3,
    'labelled': 3,
    'malignant': 1,
    'patients': 2,
    'segmentation': segmentation,
    'classification': {
      **_tree(tables.CLASSIFICATION, 1.0),
      'auc': estimate(None),
    },
    'diameter_only': _tree(tables.CLASSIFICATION, 0.125),
    'classification_minus_diameter_only': {
      **_tree(tables.CLASSIFICATION, 0.875),
      'auc': estimate(None),
    },
  }


@pytest.mark.parametrize(
  'estimated, expected',
  [
    (estimate(0.8321, 0.8104, 0.851), '83.2 (81.0-85.1)'),
    (estimate(0.8321), '83.2'),
    (estimate(1.0, 1.0, 1.0), '100.0 (100.0-100.0)'),
    (estimate(None), 'n/a'),
    (estimate(None, 0.1, 0.2), 'n/a'),
  ],
)
def test_percent(estimated, expected):
  assert tables.cell_text(estimated) == expected


@pytest.mark.parametrize(
  'estimated, expected',
  [
    (estimate(0.0214, -0.004, 0.0461), '+2.1 (-0.4 to +4.6)'),
    (estimate(-0.562, -0.784, -0.3), '-56.2 (-78.4 to -30.0)'),
    (estimate(-0.0001), '+0.0'),
    (estimate(None), 'n/a'),
  ],
)
def test_difference(estimated, expected):
  assert tables.cell_text(estimated, kind='difference') == expected


def _rows(text):
  """Returns title -> the cells of each row with that title."""
  rows = {}
  for line in text.splitlines():
    if line.startswith('  '):
      rows.setdefault(line[:28].strip(), []).append(line[28:].split())
  return rows


def test_beside_the_paper(summary):
  text = text_lib.beside_the_paper(summary, simulated=False)
  assert text.startswith('3 nodules, 2 patient(s), CT. Per cent')
  rows = _rows(text)
  assert rows['Segmentation'] == [['DI', 'JA', 'ACC', 'Recall', 'SPE']]
  assert rows['Coarse Seg-net'] == [
    ['66.7', '(50.0-80.0)', '50.0', '50.0', '50.0', '50.0']
  ]
  assert rows['Fine Seg-net'] == [['75.0'] * 5]
  assert rows['pooled pixels'] == [['40.0'] * 5, ['65.0'] * 5]
  # Table 5's first and last row, then the last row of Tables 3 and 4.
  assert rows['paper, real CT'] == [
    ['80.1', '66.8', '94.9', '93.4', '98.2'],
    ['83.2', '71.2', '96.3', '92.5', '97.7'],
    ['91.9', '93.5', '81.4', '95.0'],
  ]
  assert rows['Fine - coarse'] == [['+25.0'] * 5]
  assert rows['Classification'] == [['ACC', 'AUC', 'SEN', 'SPE']]
  assert rows['Class-net'] == [['100.0', 'n/a', '100.0', '100.0']]
  assert rows['Diameter only'] == [['12.5'] * 4]
  assert rows['Class-net - diameter only'] == [
    ['+87.5', 'n/a', '+87.5', '+87.5']
  ]
  assert 'simulated' not in text.lower()


def test_missing_networks_are_marked_as_not_run(summary):
  del summary['segmentation']['fine'], summary['classification']
  del summary['segmentation']['fine_minus_coarse']
  rows = _rows(text_lib.beside_the_paper(summary, simulated=False))
  assert rows['Fine Seg-net'] == [['not', 'run'] * 5]
  assert rows['Class-net'] == [['not', 'run'] * 4]
  assert len(rows['pooled pixels']) == 1
  # The paper's rows are shown all the same.
  assert [len(row) for row in rows['paper, real CT']] == [5, 5, 4]
  assert 'Fine - coarse' not in rows
  assert rows['Diameter only'] == [['12.5'] * 4]


def test_another_strategy_is_shown_with_the_paper_s_row_for_it(summary):
  del summary['segmentation']['coarse']
  del summary['segmentation']['fine_minus_coarse']
  text = text_lib.beside_the_paper(summary, simulated=False, strategy='serial')
  rows = _rows(text)
  assert rows['Mask'] == [['75.0'] * 5]
  # Table 1, Yu et al.
  assert rows['paper, real CT'] == [
    ['80.5', '-', '-', '80.5', '-'],
    ['87.3', '90.7', '-', '-'],
  ]
  assert 'Seg-net' not in text and 'Class-net' not in text


def test_simulated_ct_is_marked(summary):
  text = text_lib.beside_the_paper(summary, simulated=True)
  assert '2 patient(s), SIMULATED CT.' in text
  assert text.endswith('Results on simulated CT cannot be compared with it.')


def _record(name, label=1):
  return {
    'nodule_id': name,
    'diameter_mm': 12.34,
    'label': label,
    'malignancy_probability': 0.98765,
    'coarse_dice': 0.5,
    'coarse_jaccard': 1 / 3,
    'fine_dice': 1.0,
    'fine_jaccard': 1.0,
  }


def test_per_nodule():
  records = [_record('a', 0), _record('b', 1), _record('c', -1)]
  lines = text_lib.per_nodule(records).splitlines()
  assert len(lines) == 4
  numbers = ['0.988', '0.500', '0.333', '1.000', '1.000']
  assert lines[1].split() == ['a', '12.3', 'benign', *numbers]
  assert lines[2].split() == ['b', '12.3', 'malignant', *numbers]
  assert lines[3].split() == ['c', '12.3', 'open', *numbers]


def test_per_nodule_counts_the_records_that_it_leaves_out():
  lines = text_lib.per_nodule([_record(str(i)) for i in range(5)], max_lines=2)
  assert lines.splitlines()[3:] == ['  ... and 3 more in records.csv']
  assert len(lines.splitlines()) == 4


def test_per_nodule_of_a_run_without_all_networks():
  record = _record('a')
  for key in ('malignancy_probability', 'fine_dice', 'fine_jaccard'):
    del record[key]
  head, line = text_lib.per_nodule([record]).splitlines()
  assert head.split() == ['nodule', 'mm', 'label', 'coarse', 'DI', 'JA']
  assert line.split() == ['a', '12.3', 'malignant', '0.500', '0.333']
