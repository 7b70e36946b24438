"""A dataset in memory."""

import types

import fake_records
import pytest

from mtnet_jax.data import lidc


@pytest.fixture(name='built')
def _built(monkeypatch):
  """A dataset of three records in a split 'test'."""
  source = types.SimpleNamespace(
    is_prepared=lambda: True,
    data_dir='/data/lidc_nodules/x/1.0.0',
    info=types.SimpleNamespace(
      splits={'test': None}, metadata={'simulated': True}
    ),
    as_data_source=lambda split: fake_records.Records(
      map(fake_records.record, range(3))
    ),
  )
  monkeypatch.setattr(lidc, 'builder', lambda name, data_dir: source)
  return source
