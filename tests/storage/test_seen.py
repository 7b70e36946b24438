"""Lists of the nodules that a model has seen, written and read back."""

import numpy as np
import pytest

from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

# Patient p was used in training and validation, q in validation only.
_ROWS = frozenset(
  {
    ('p_a', 'p', 'train'),
    ('p_b', 'p', 'validation'),
    ('q_a', 'q', 'validation'),
  }
)


def test_a_list_is_written_as_a_table_and_read_back(tmp_path):
  path = tmp_path / seen_lib.FILE
  seen_lib.write(path, seen_lib.Seen(_ROWS))
  assert path.read_text() == (
    'nodule_id,patient_id,used_for\n'
    'p_a,p,train\n'
    'p_b,p,validation\n'
    'q_a,q,validation\n'
  )
  assert seen_lib.read(path) == seen_lib.Seen(_ROWS, by_fold=False)
  assert seen_lib.read_if_there(tmp_path) == seen_lib.Seen(_ROWS)


def test_a_folder_without_a_list_has_none(tmp_path):
  assert seen_lib.read_if_there(tmp_path) is None


def test_training_takes_precedence():
  """The order of rows does not matter."""
  seen = seen_lib.Seen(_ROWS)
  assert seen_lib.patients(seen) == {'p': 'train', 'q': 'validation'}
  assert seen_lib.nodules(seen) == {
    'p_a': 'train',
    'p_b': 'validation',
    'q_a': 'validation',
  }
  for rows in (
    [('n', 'x', 'train'), ('n', 'x', 'validation')],
    [('n', 'x', 'validation'), ('n', 'x', 'train')],
  ):
    assert seen_lib.nodules(seen_lib.Seen(frozenset(rows))) == {'n': 'train'}


def test_patients_of_nodules_are_looked_up():
  found = seen_lib.used_for(
    seen_lib.Seen(_ROWS), np.array(['q', 'p', 'r', 'p'])
  )
  assert found.tolist() == ['validation', 'train', '', 'train']
  assert seen_lib.used_for(seen_lib.Seen(_ROWS), []).shape == (0,)


def test_a_union_has_the_nodules_of_all_models():
  other = seen_lib.Seen(frozenset({('q_a', 'q', 'train')}), by_fold=True)
  together = seen_lib.union([seen_lib.Seen(_ROWS), other])
  assert together == seen_lib.Seen(_ROWS | other.rows, by_fold=True)
  assert seen_lib.patients(together)['q'] == 'train'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'damaged'),
    ('nodule_id,patient_id,used_for\n', 'a row per nodule'),
    ('nodule_id,patient_id\na,b\n', 'must have the columns'),
    ('patient_id,nodule_id,used_for\na,b,train\n', 'must have the columns'),
    ('nodule_id,patient_id,used_for\na,b\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\na,b,train,c\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\na,b,train\na,b,test\n', 'row 3 is not'),
    ('nodule_id,patient_id,used_for\n,b,train\n', 'row 2 is not'),
    (f'nodule_id,patient_id,used_for\n{"a" * 201},b,train\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\n"a,b,train\n', 'damaged'),
    # A terminal obeys these: a title, a new line, reversed text.
    ('nodule_id,patient_id,used_for\n\x1b]0;x\x07,b,train\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\na,"b\nb",train\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\na,b\u202e,train\n', 'row 2 is not'),
    ('nodule_id,patient_id,used_for\n\udcff,b,train\n', 'damaged'),
  ],
)
def test_a_damaged_list_is_refused_in_one_line(tmp_path, text, message):
  path = tmp_path / seen_lib.FILE
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))
  with pytest.raises(errors.InputError, match=message) as error:
    seen_lib.read(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_list_that_is_a_folder_is_refused(tmp_path):
  (tmp_path / seen_lib.FILE).mkdir()
  with pytest.raises(errors.InputError, match='cannot be read'):
    seen_lib.read_if_there(tmp_path)
