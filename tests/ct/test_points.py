"""Points files: what is understood, what is refused, and how."""

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
    # Any order, other columns, spaces, capitals.
    ('note, Z ,Y,X\nhm,3,2,1\n', True, (1, 2, 3)),
    # As spreadsheets save it: a byte order mark, semicolons, CR LF.
    ('\ufeffx;y;z\r\n1;2;3\r\n\r\n', True, (1, 2, 3)),
    ('x\ty\tz\n1e1\t+2\t3\n', True, (10, 2, 3)),
  ],
)
def test_the_header_says_what_numbers_are(tmp_path, text, in_mm, at):
  found = _read(tmp_path, text)
  assert (found.in_mm, found.faults) == (in_mm, [])
  assert found.points == [('1', at)]


def test_ids_are_given_or_counted(tmp_path):
  found = _read(tmp_path, 'id,x,y,z\nleft.1,1,2,3\n,1,2,3\nB,1,2,3\n')
  assert [p.point_id for p in found.points] == ['left.1', '2', 'B']


@pytest.mark.parametrize(
  ('row', 'name', 'says'),
  [
    ('a,1,2', 'a', 'z is missing'),
    ('a,1,,3', 'a', 'y is missing'),
    ('a,1,two,3', 'a', "y is 'two', not a number"),
    ('a,1,NaN,3', 'a', 'y is NaN, not a finite'),
    ('a,1,2,-inf', 'a', 'z is -inf, not a finite'),
    ('a,1,2,3,4', 'a', '5 cells'),
    ('ok,1,2,3', 'ok', 'taken by a point before'),
    ('OK,1,2,3', 'OK', 'taken by a point before'),  # one file on many disks
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
def test_a_bad_row_costs_itself_only(tmp_path, row, name, says):
  found = _read(tmp_path, f'id,x,y,z\nok,1,2,3\n{row}\nlast,4,5,6\n')
  assert [p.point_id for p in found.points] == ['ok', 'last']
  ((where, reason),) = found.faults
  assert where == name and says in reason


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('', 'is empty'),
    ('\n\n', 'is empty'),
    ('x,y,z\n', 'no point'),
    ('1,2,3\n4,5,6\n', "'1,2,3'"),
    ('x,y\n1,2\n', 'x,y,z (mm) or row,col,slice'),
    ('x,y,z,i,j,k\n1,2,3,4,5,6\n', 'x,y,z and i,j,k'),
    ('x,y,z,x\n1,2,3,4\n', 'x twice'),
    (b'\xff\xfex\0,\0', 'UTF-8'),
    ('x,y,z\n1,2,"3' + 'x' * 140000, 'no CSV'),
  ],
)
def test_a_file_that_says_nothing_is_refused(tmp_path, text, says):
  with pytest.raises(errors.InputError) as error:
    _read(tmp_path, text)
  assert says in str(error.value)
  assert 'points.csv' in str(error.value)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.InputError, match='none.csv'):
    points.read(tmp_path / 'none.csv')
