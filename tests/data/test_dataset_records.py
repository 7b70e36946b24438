"""Records that no build writes are refused before they are shown."""

import zlib

import fake_records
import numpy as np
import pytest

from mtnet_jax.data import lidc
from mtnet_jax.system import errors


@pytest.mark.parametrize(
  ('fields', 'message'),
  (
    ({'nodule_id': b'\xff\xfe'}, "can't decode"),
    ({'nodule_id': b'\x1b]0;x\x07'}, 'nodule_id is not'),
    ({'patient_id': b'a\nb'}, 'patient_id is not'),
    ({'series_uid': 'a\u202eb'.encode()}, 'series_uid is not'),
    ({'nodule_id': b'a' * 201}, 'nodule_id is not'),
    ({'patient_id': b''}, 'patient_id is not'),
    # `bytes` of this number would fill the memory.
    ({'nodule_id': 1 << 50}, 'nodule_id is not text'),
    ({'diameter_mm': b'\x1b[31m'}, 'diameter_mm is not a number'),
    ({'fold': np.array([1, 2])}, 'fold is not a number'),
    ({'image': np.zeros((3, 3, 1))}, 'same shape'),
    ({'texture': None}, 'NoneType'),
    ({'label': 1 << 40}, 'too large|out of bounds'),
  ),
)
def test_a_record_that_no_build_writes_gives_one_short_line(
  built, fields, message
):
  rows = fake_records.Records(
    [fake_records.record(0), {**fake_records.record(1), **fields}]
  )
  built.as_data_source = lambda split: rows
  with pytest.raises(
    errors.InputError, match=f'is damaged.*({message})'
  ) as error:
    lidc.load_split('lidc_nodules/phantom', 'test', limit=5)
  line = str(error.value)
  assert line.isprintable() and len(line) < 500
  # Records that are not read are not checked.
  assert len(lidc.load_split('lidc_nodules/phantom', 'test', limit=1)) == 1


@pytest.mark.parametrize(
  'raised',
  (zlib.error('Error -3'), KeyError('image'), ValueError('\x1b\n' * 999)),
)
def test_records_that_cannot_be_decoded_give_one_short_line(built, raised):
  class Damaged(fake_records.Records):
    def __getitems__(self, indices):
      raise raised

  built.as_data_source = lambda split: Damaged([fake_records.record(0)])
  with pytest.raises(errors.InputError, match='is damaged') as error:
    lidc.load_split('lidc_nodules/phantom', 'test')
  message = str(error.value)
  assert message.isprintable() and len(message) < 500


def test_an_id_of_200_characters_of_any_script_is_read(built):
  name = 'ö' * 200
  row = {**fake_records.record(0), 'nodule_id': name.encode()}
  built.as_data_source = lambda split: fake_records.Records([row])
  nodules = lidc.load_split('lidc_nodules/phantom', 'test')
  assert list(nodules.info['nodule_id']) == [name]
