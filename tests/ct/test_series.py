"""Tests which series is found among files, and the errors if none is."""

import ct_files
import pytest

from mtnet_jax.ct import series
from mtnet_jax.system import errors


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(shape=(4, 96, 112))


def test_one_of_several_series_must_be_chosen(tmp_path, hu):
  ct_files.write(tmp_path / 'a', hu[:3], series_uid='1.2.3')
  ct_files.write(
    tmp_path / 'b', hu[:2], series_uid='1.2.4', SeriesDescription='chest'
  )
  with pytest.raises(errors.InputError) as error:
    series.find([tmp_path])
  assert '1.2.3 (3 slices, SIMULATED); 1.2.4 (2 slices). Choose' in str(
    error.value
  )
  assert '--series=UID' in str(error.value)
  chosen = series.find([tmp_path], series_uid='1.2.4')
  assert len(chosen) == 2 and not chosen.simulated
  assert series.find([tmp_path / 'a']).simulated
  with pytest.raises(errors.InputError, match='no CT series 1.2.5, but 1.2.3'):
    series.find([tmp_path], series_uid='1.2.5')


def test_only_a_few_of_many_series_are_listed(tmp_path, hu):
  for number in range(12):
    for kind, modality in (('ct', 'CT'), ('mr', 'MR')):
      ct_files.write(
        tmp_path / kind / f'{number:02}',
        hu[:1],
        series_uid=f'1.2.{100 + number}',
        modality=modality,
      )
  with pytest.raises(errors.InputError) as error:
    series.find([tmp_path / 'ct'])
  text = str(error.value)
  assert 'holds 12 CT series: 1.2.100 (1 slices, SIMULATED); ' in text
  assert '1.2.103 (1 slices, SIMULATED) and 8 more. Choose one' in text
  assert '1.2.104' not in text
  assert '--series=UID, or give its folder' in text
  with pytest.raises(errors.InputError, match='and 8 more: give one of them'):
    series.find([tmp_path / 'ct'], series_uid='1.2.3')
  with pytest.raises(errors.InputError, match='1.2.103 and 8 more. Give'):
    series.find([tmp_path / 'mr'])


def test_files_that_are_no_ct_are_named(tmp_path, hu):
  ct_files.write(tmp_path / 'mr', hu[:2], modality='MR')
  with pytest.raises(errors.InputError) as error:
    series.find([tmp_path / 'mr'])
  assert f'2 MR images of series {ct_files.SERIES_UID}' in str(error.value)
  assert 'SECRET' not in str(error.value)
  (tmp_path / 'text').mkdir()
  (tmp_path / 'text' / 'notes.txt').write_text('x')
  with pytest.raises(errors.InputError, match='1 files, none of them DICOM'):
    series.find([tmp_path / 'text'])
  (tmp_path / 'text' / '1.dcm').write_text('x')
  with pytest.raises(errors.InputError, match='1.dcm is text, not a DICOM'):
    series.find([tmp_path / 'text'])
  with pytest.raises(errors.InputError, match='none does not exist'):
    series.find([tmp_path / 'none'])
