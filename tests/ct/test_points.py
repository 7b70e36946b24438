"""Tests which points files are understood and which are refused."""

import json

import pytest

from mtnet_jax.ct import points
from mtnet_jax.system import errors


def _read(tmp_path, text):
  path = tmp_path / 'points.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return points.read(path)


@pytest.mark.parametrize(
  ('text', 'in_mm', 'at'),
  [
    ('x,y,z\n-1.5,2,3\n', True, (-1.5, 2, 3)),
    ('row,col,slice\n1,2,3\n', False, (3, 1, 2)),
    ('i,j,k\n1,2,3\n', False, (3, 2, 1)),
    # The order, other columns, spaces and capitals do not matter.
    ('note, Z ,Y,X\nhm,3,2,1\n', True, (1, 2, 3)),
    # Spreadsheets write a byte order mark, semicolons, tabs and CR LF.
    ('\ufeffx;y;z\r\n1;2;3\r\n\r\n', True, (1, 2, 3)),
    ('x\ty\tz\n1e1\t+2\t3\n', True, (10, 2, 3)),
    # A German Excel; an old Mac; Excel's 'Unicode text'; Windows-1252.
    ('x;y;z;was\n-1,5;2,25;1e1;"a,5"\n', True, (-1.5, 2.25, 10)),
    ('x\ty\tz\r-1,5\t+2,0\t3\r', True, (-1.5, 2, 3)),
    ('x\ty\tz\r\n1\t2,5\t3\r\n'.encode('utf-16'), True, (1, 2.5, 3)),
    ('x,y,z,Größe\n1,2,3,ä\n'.encode('cp1252'), True, (1, 2, 3)),
    # Names may have units and other forms.
    ('x (mm),y (mm),z (mm)\n1,2,3\n', True, (1, 2, 3)),
    ('X [mm],Y [mm],Z [mm]\n1,2,3\n', True, (1, 2, 3)),
    ('"x (mm, RAS)";y_ras;z (RAS)\n1;2;3\n', True, (-1, -2, 3)),
    ('r,a,s\n1,2,3\n', True, (-1, -2, 3)),
    ('coordX,coordY,coordZ,diameter_mm\n1,2,3,9\n', True, (1, 2, 3)),
    ('pos_x,pos_y,pos_z\n1,2,3\n', True, (1, 2, 3)),
    ('l_mm,p_mm,s_mm\n1,2,3\n', True, (1, 2, 3)),
    # Old markups of 3D Slicer are RAS, which they write as a number.
    (
      '# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n'
      '# columns = id,x,y,z,ow\nvtkMRML_0,1,2,3,0\n',
      True,
      (-1, -2, 3),
    ),
  ],
)
def test_the_header_tells_what_the_numbers_are(tmp_path, text, in_mm, at):
  found = _read(tmp_path, text)
  assert (found.in_mm, found.faults) == (in_mm, [])
  ((name, found_at),) = found.points
  assert name in ('1', 'vtkMRML_0') and found_at == at


def test_ids_are_read_or_counted(tmp_path):
  found = _read(tmp_path, 'id,x,y,z\nleft.1,1,2,3\n,1,2,3\nB,1,2,3\n')
  assert [p.point_id for p in found.points] == ['left.1', '2', 'B']


@pytest.mark.parametrize(
  ('row', 'name', 'message'),
  [
    ('a,1,2', 'a', 'z is missing'),
    ('a,1,,3', 'a', 'y is missing'),
    ('a,1,two,3', 'a', "y is 'two', not a number"),
    ('a,1,NaN,3', 'a', 'y is NaN, not a finite'),
    ('a,1,2,-inf', 'a', 'z is -inf, not a finite'),
    ('a,1,2,3,4', 'a', '5 cells'),
    ('ok,1,2,3', 'ok', 'taken by an earlier point'),
    ('OK,1,2,3', 'OK', 'taken by an earlier point'),  # one file on many disks
    ('../../x,1,2,3', 'row 2', 'name of a file'),
    ('/etc/x,1,2,3', 'row 2', 'name of a file'),
    ('.hidden,1,2,3', 'row 2', 'name of a file'),
    ('a\\b,1,2,3', 'row 2', 'name of a file'),
    ('"a\nb",1,2,3', 'row 2', 'name of a file'),
    ('a\0b,1,2,3', 'row 2', 'name of a file'),
    ('x' * 65 + ',1,2,3', 'row 2', 'name of a file'),
    ('Jürgen,1,2,3', 'row 2', 'name of a file'),
  ],
)
def test_a_bad_row_does_not_stop_others(tmp_path, row, name, message):
  found = _read(tmp_path, f'id,x,y,z\nok,1,2,3\n{row}\nlast,4,5,6\n')
  assert [p.point_id for p in found.points] == ['ok', 'last']
  ((where, reason),) = found.faults
  assert where == name and message in reason


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'is empty'),
    ('\n\n', 'is empty'),
    ('x,y,z\n', 'no point'),
    ('1,2,3\n4,5,6\n', "'1,2,3'"),
    ('x,y\n1,2\n', 'x,y,z (mm) or row,col,slice'),
    ('x,y,z,i,j,k\n1,2,3,4,5,6\n', 'x,y,z and i,j,k'),
    ('x,y,z,x\n1,2,3,4\n', 'x twice'),
    (b'x,y,z\n\x81\0\0\0', 'not text'),
    ('x (cm),y (cm),z (cm)\n1,2,3\n', "'cm'"),
    ('x (RAS),y (LPS),z\n1,2,3\n', 'LPS and RAS'),
    ('# CoordinateSystem = IJK\n# columns = x,y,z\n1,2,3\n', "'IJK'"),
    ('# CoordinateSystem = 1\nr,a,s\n1,2,3\n', 'LPS and RAS'),
    ('{"markups": 3}', 'neither 3D Slicer'),
    ('{"markups": []}', 'no point'),
    ('[{"image": "x.nii.gz"}]', 'neither 3D Slicer'),
    ('{"box_mode": "xyz", "training": []}', "'xyz'"),
    ('{"markups": [', 'damaged JSON'),
    (
      '{"markups": [{"coordinateUnits": "cm", "controlPoints": []}]}',
      "['cm']",
    ),
    ('x,y,z\n1,2,"3' + 'x' * 140000, 'not CSV'),
  ],
)
def test_an_unclear_file_is_refused(tmp_path, text, message):
  with pytest.raises(errors.InputError) as error:
    _read(tmp_path, text)
  assert message in str(error.value)
  assert 'points.csv' in str(error.value)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.InputError, match='none.csv'):
    points.read(tmp_path / 'none.csv')


_UIDS = ['1.2.840.1.1.1.1', '1.2.840.1.1.1.2']


def test_rows_of_other_series_are_ignored(tmp_path):
  """As in LUNA16's annotations.csv; their bad rows are ignored, too."""
  found = _read(
    tmp_path,
    'seriesuid,coordX,coordY,coordZ,diameter_mm\n'
    f'{_UIDS[0]},1,2,3,4\n{_UIDS[1]},5,6,7,8\n{_UIDS[1]},5,,7,8\n'
    f'{_UIDS[0]},9,x,9,9\n',
  )
  own = found.of_series(_UIDS[0])
  assert own.points == [('1', (1, 2, 3))]
  assert [name for name, _ in own.faults] == ['4']
  with pytest.raises(errors.InputError, match=f'2 others, such as {_UIDS[0]}'):
    found.of_series('1.2.3')
  # The series of the CT is unknown.
  with pytest.raises(errors.InputError, match='2 series'):
    found.of_series('')
  one = _read(tmp_path, f'seriesuid,x,y,z\n{_UIDS[0]},1,2,3\n')
  assert one.of_series('').points == [('1', (1, 2, 3))]
  # If the file names no series, its points belong to any.
  assert _read(tmp_path, 'x,y,z\n1,2,3\n').of_series('1.2.3').points


def test_markups_of_3d_slicer(tmp_path):
  """The file is written by hand after the schema markups-schema-v1.0.3."""
  points = [
    {'id': '1', 'label': 'F-1', 'position': [1, 2, 3]},
    {'id': '2', 'label': 'a/b', 'position': [1, 2, 3]},
    {'id': '3', 'label': 'F-3', 'position': [1, 2]},
    {'id': '4', 'position': [4, 5, 6], 'positionStatus': 'undefined'},
  ]
  found = _read(
    tmp_path,
    json.dumps(
      {
        'markups': [
          {'coordinateSystem': 'RAS', 'controlPoints': points},
          {
            'coordinateSystem': 'LPS',
            'coordinateUnits': 'mm',
            'controlPoints': [{'id': '5', 'position': [7, 8, 9]}],
          },
        ]
      }
    ),
  )
  assert found.in_mm
  assert found.points == [('F-1', (-1, -2, 3)), ('5', (7, 8, 9))]
  assert [name for name, _ in found.faults] == ['row 2', 'F-3']


@pytest.mark.parametrize('kind', ('dataset', 'results', 'corners', 'one'))
def test_boxes_of_monai(tmp_path, kind):
  boxes = [[1, 2, 3, 4, 4, 4], [5, 6, 7, 0, 1, 1]]
  images = [
    {'image': f'{_UIDS[0]}/{_UIDS[0]}.nii.gz', 'box': boxes, 'label': [0, 0]},
    {'image': f'/x/{_UIDS[1]}.mhd', 'box': [[9] * 6], 'score': [0.5]},
  ]
  tree = {
    'dataset': {'training': images, 'validation': []},
    'results': images,
    'corners': {
      'gt_box_mode': 'xyzxyz',
      'validation': [{'image': _UIDS[0], 'box': [[-1, 0, 1, 3, 4, 5]]}],
    },
    'one': {'image': 'ct.nii.gz', 'box': [[1, 2, 3, 4, 4, 4]]},
  }[kind]
  found = _read(tmp_path, json.dumps(tree)).of_series(_UIDS[0])
  assert found.points == [('1', (1, 2, 3))]
  assert [name for name, _ in found.faults] == (
    ['2'] if kind in ('dataset', 'results') else []
  )
