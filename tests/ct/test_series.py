"""Which series is found among files, and what is said where none is."""

import ct_files
import pytest

from mtnet_jax.ct import series
from mtnet_jax.system import errors


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(shape=(4, 96, 112))


def test_several_series_have_to_be_told_apart(tmp_path, hu):
  ct_files.write(tmp_path / 'a', hu[:3], series_uid='1.2.3')
  ct_files.write(
    tmp_path / 'b', hu[:2], series_uid='1.2.4', SeriesDescription='chest'
  )
  with pytest.raises(errors.InputError) as error:
    series.find([tmp_path])
  assert '1.2.3 (3 slices, SIMULATED); 1.2.4 (2 slices). Say' in str(
    error.value
  )
  assert '--series=UID' in str(error.value)
  chosen = series.find([tmp_path], series_uid='1.2.4')
  assert len(chosen) == 2 and not chosen.simulated
  assert series.find([tmp_path / 'a']).simulated
  with pytest.raises(errors.InputError, match='no CT series 1.2.5, but 1.2.3'):
    series.find([tmp_path], series_uid='1.2.5')


def test_of_many_series_the_first_few_are_listed(tmp_path, hu):
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
  assert '1.2.103 (1 slices, SIMULATED) and 8 more. Say which' in text
  assert '1.2.104' not in text
  assert '--series=UID, or give the folder of one' in text
  with pytest.raises(errors.InputError, match='and 8 more: give one of them'):
    series.find([tmp_path / 'ct'], series_uid='1.2.3')
  with pytest.raises(errors.InputError, match='1.2.103 and 8 more. Give'):
    series.find([tmp_path / 'mr'])


def test_what_is_no_ct_is_named(tmp_path, hu):
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
