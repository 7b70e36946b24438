"""A user's own lists of nodules and folds: accepted formats and errors."""

import dataclasses
import os
import pickle

import pytest

from tfds_lidc import cohort
from tfds_lidc import errors
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import lists
from tfds_lidc.nodules import overrides
from tfds_lidc.nodules import selection

_ALL = selection.POLICIES['all']
_PAPER = selection.POLICIES['paper']
# In LIDC-IDRI-0003, one reader outlined 14_1 and four outlined 14_2 to 14_4.
_IDS = [f'LIDC-IDRI-0003_14_{k}' for k in (1, 2, 3, 4)]
_SERIES = '1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264'


@pytest.fixture(name='write')
def _write(tmp_path):
  def write(text, name='list.csv'):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)

  return write


def _name(text):
  return overrides.apply(_ALL, text).name


@pytest.mark.parametrize(
  'text',
  (
    f'nodule_id\n{_IDS[1]}\n{_IDS[0]}\n',
    f'nodule_id\n{_IDS[0]}\n{_IDS[1]}\n{_IDS[0]}',
    f'\ufeffNodule_ID;note\r\n{_IDS[0]} ;a,b\r\n\r\n {_IDS[1]};\r\n',
    f'# ours, 2024\nid\tnodule_id\n1\t"{_IDS[0]}"\n# checked\n2\t{_IDS[1]}\n',
    # The finest key is used, other columns are ignored.
    f'patient_id,nodule_id\nx,{_IDS[0]}\ny,{_IDS[1]}\n',
  ),
)
def test_ids_are_read_from_any_style_of_csv(write, text):
  assert lists.read_nodules(write(text)) == (_IDS[0], _IDS[1])


@pytest.mark.parametrize(
  ('header', 'value'),
  (
    ('seriesuid', _SERIES),
    ('SeriesInstanceUID', _SERIES),
    ('patient_id', 'LIDC-IDRI-0003'),
  ),
)
def test_series_or_patient_selects_all_of_its_nodules(write, header, value):
  # One row per nodule, as in LUNA16's annotations.csv.
  path = write(f'{header},coordX\n{value},-128.7\n{value},103.8\n')
  assert lists.read_nodules(path) == tuple(_IDS)
  path = write(f'fold,{header}\n4,{value}\n')
  assert lists.read_folds(path) == tuple((i, 4) for i in _IDS)


def test_scan_without_nodules_is_accepted(write):
  """LUNA16 lists scans in which no reader marked a nodule."""
  (empty, *_) = sorted(
    set(annotations.scans()) - {n.series_uid for n in selection.clusters()}
  )
  path = write(f'seriesuid\n{empty}\n{_SERIES}\n')
  assert lists.read_nodules(path) == tuple(_IDS)
  with pytest.raises(errors.InputError, match='names no nodule'):
    lists.read_nodules(write(f'seriesuid\n{empty}\n'))


@pytest.mark.parametrize(
  ('text', 'words'),
  (
    ('nodule_id\n' + _IDS[0] + '\n\nLIDC-IDRI-0003_14_9\n', ['line 4', '14_9']),
    ('seriesuid\n1.2.3\n', ['line 2', "'1.2.3'", 'no seriesuid']),
    ('patient_id\nLIDC-IDRI-1013\n', ['line 2', 'LIDC-IDRI-1013']),
    (f'{_IDS[0]}\n{_IDS[1]}\n', ['nodules= needs a header with nodule_id']),
    ('', ['needs a header']),
    ('nodule_id\n', ['no rows']),
    ('nodule_id,fold\n,1\n', ['line 2', 'nodule_id is empty']),
    ('nodule_id,nodule_id\na,b\n', ['twice']),
    ('nodule_id\nö\n'.encode('latin-1'), ['UTF-8']),
    ('nodule_id\na\n'.encode('utf-16'), ['UTF-8']),
    (b'nodule_id\n' + b'x' * (5 << 20), ['more than 5 MiB']),
    (b'nodule_id\n' + b'x' * 200_000, ['line 2', 'no CSV']),
  ),
)
def test_error_of_an_invalid_list_of_nodules(write, text, words):
  path = write(text)
  with pytest.raises(errors.InputError) as caught:
    lists.read_nodules(path)
  for word in (path, *words):
    assert word in str(caught.value)
  assert len(str(caught.value)) < 400


def _folds(*folds, header='nodule_id,fold'):
  rows = (f'{i},{fold}\n' for i, fold in zip(_IDS, folds, strict=False))
  return f'{header}\n{"".join(rows)}'


@pytest.mark.parametrize(
  ('text', 'words'),
  (
    (_folds(0, 1, header='nodule_id,subset'), ['and with fold']),
    (_folds(0, ''), ['line 3', "''", 'folds go from 0 to 4']),
    (_folds(0, 'train'), ['line 3', "'train'"]),
    (_folds(0, -1), ['line 3', "'-1'"]),
    (_folds(0, 1.5), ['line 3', "'1.5'"]),
    (_folds(0, 9, 3), ['line 3', 'no fold 9', "LUNA16's", 'halving']),
    (_folds(1, 5, 3), ['line 3', 'no fold 5', 'subtract 1']),
    (_folds(0, 12), ['line 3', 'no fold 12']),
    (
      f'nodule_id,fold\n{_IDS[0]},1\n{_IDS[1]},1\n{_IDS[0]},2\n',
      [_IDS[0], 'fold 1 (line 2)', 'fold 2 (line 4)'],
    ),
  ),
)
def test_error_of_invalid_folds(write, text, words):
  path = write(text)
  with pytest.raises(errors.InputError) as caught:
    lists.read_folds(path)
  for word in (path, *words):
    assert word in str(caught.value)


def test_error_of_a_missing_file_says_that_its_dataset_opens_by_name(tmp_path):
  with pytest.raises(errors.InputError, match='opens by its own name'):
    lists.read_nodules(str(tmp_path / 'gone.csv'))


@pytest.mark.parametrize(
  'make',
  (os.mkfifo, lambda path: path.symlink_to('/dev/zero'), os.mkdir),
  ids=('pipe', 'endless', 'folder'),
)
@pytest.mark.parametrize('read', (lists.read_nodules, lists.read_folds))
def test_path_that_is_not_an_ordinary_file_is_refused(tmp_path, make, read):
  make(tmp_path / 'a.csv')
  message = r'a\.csv cannot be read \((it is not a regular file|Is a directory)'
  with pytest.raises(errors.InputError, match=message):
    read(str(tmp_path / 'a.csv'))


def test_name_depends_on_the_ids_and_not_on_their_format(write):
  a = write(f'nodule_id\n{_IDS[0]}\n{_IDS[2]}\n', 'a.csv')
  b = write(f'# b\nnodule_id;x\r\n{_IDS[2]};1\r\n{_IDS[0]};2\r\n', 'b.csv')
  c = write(f'nodule_id\n{_IDS[0]}\n{_IDS[1]}\n', 'c.csv')
  # Start of what `sha256sum` prints for the ids, one per line. It must never
  # change, as folders of datasets have this name.
  assert _name(f'nodules={a}') == 'all-nodules_b179870048'
  assert _name(f'nodules={b}') == _name(f'nodules={a}')
  assert _name(f'nodules={c}') != _name(f'nodules={a}')


def test_name_shows_whether_a_patient_is_in_several_folds(write):
  whole = write(_folds(2, '2', '2.0', 2), 'whole.csv')
  by_patient = write('patient_id,fold\nLIDC-IDRI-0003,2\n', 'patient.csv')
  split = write(_folds(2, 2, 2, 3), 'split.csv')
  assert _name(f'folds={whole}') == _name(f'folds={by_patient}')
  assert _name(f'folds={whole}') == 'all-folds_7ec0b45c11'
  policy = overrides.apply(_ALL, f'folds={split},slices=all')
  assert policy.name.startswith('all-slices_all-folds_by_nodule_')
  assert policy.split_by == 'nodule'


def test_policy_keeps_the_content_of_its_files(write):
  path = write(_folds(0, 1, 3, 4))
  policy = overrides.apply(_ALL, f'nodules={path},folds={path}')
  assert pickle.loads(pickle.dumps(policy)) == policy
  assert len({policy, dataclasses.replace(policy)}) == 1
  assert policy.nodules == tuple(_IDS)
  open(path, 'w').close()
  assert [(n.nodule_id, n.fold, n.split) for n in selection.select(policy)] == [
    (_IDS[0], 0, 'train'),
    (_IDS[1], 1, 'train'),
    (_IDS[2], 3, 'validation'),
    (_IDS[3], 4, 'test'),
  ]


def test_selected_nodule_without_a_fold_is_an_error(write):
  path = write(_folds(0, 0, 0))
  with pytest.raises(errors.InputError) as caught:
    selection.select(overrides.apply(_ALL, f'folds={path}'))
  assert 'no fold for 2648 of the 2651 selected nodules' in str(caught.value)
  assert 'LIDC-IDRI-0001_12_1' in str(caught.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  (
    ('nodules=', 'nodules= needs a file'),
    ('nodules=a,b.csv', "'b.csv' is none of .*contains a comma"),
    ('folds=a.csv,split_by=nodule', 'both say how to split'),
    ('slices=' + 'x' * 600, '600 letters'),
  ),
)
def test_error_of_an_invalid_policy(text, message):
  with pytest.raises(errors.InputError, match=message):
    overrides.apply(_PAPER, text)


def test_description_contains_no_path(write):
  path = write(_folds(0, 0))
  assert overrides.without_paths(f'slices=all, nodules={path}') == (
    'slices=all,nodules=FILE'
  )


def test_tilde_in_a_path_is_expanded(write, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  path = write(f'nodule_id\n{_IDS[0]}\n')
  assert _name('nodules=~/list.csv') == _name(f'nodules={path}')


def test_cohort_names_listed_nodules_that_limits_exclude(write):
  policy = overrides.apply(
    _PAPER, f'nodules={write("patient_id" + chr(10) + "LIDC-IDRI-0003")}'
  )
  text = cohort.described(policy)
  kept = [n.nodule_id for n in selection.select(policy)]
  assert kept == [_IDS[2], _IDS[3]]
  assert 'nodules: 2 of the 4 listed ones are selected' in text
  assert f'  1 left out by readers: {_IDS[0]}\n' in text
  assert f'  1 left out by size: {_IDS[1]}\n' in text
  assert f'dataset: lidc_nodules/{policy.name}' in text


def test_cohort_warns_of_patients_in_several_folds(write):
  def described(*folds):
    path = write(_folds(*folds))
    return cohort.described(
      overrides.apply(_PAPER, f'nodules={path},folds={path}')
    )

  assert 'CAUTION' in described(0, 0, 0, 3)
  assert '1 of 1 patients into several folds (LIDC-IDRI-0003)' in described(
    0, 0, 0, 3
  )
  # None of the nodules in another fold is selected.
  assert 'CAUTION' not in described(0, 3, 1, 1)


def test_csv_of_cohort_gives_the_same_nodules_and_folds(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr('sys.argv', ['cohort', f'--csv={tmp_path}/c.csv'])
  cohort.main()
  path = f'{tmp_path}/c.csv'
  assert f'1423 nodules of paper -> {path}' in capsys.readouterr().out
  changed = overrides.apply(_PAPER, f'nodules={path},folds={path}')
  assert selection.select(changed) == selection.select(_PAPER)
  with open(path, encoding='utf-8') as file:
    assert next(file) == 'nodule_id,patient_id,seriesuid,fold,label\n'
    assert next(file).split(',')[::4] == [_IDS[2], 'malignant\n']
