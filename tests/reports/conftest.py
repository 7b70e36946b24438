"""Fixtures: a complete page of the report, and fewer bootstrap replicates."""

import functools

import numpy as np
import pages
import pytest

from mtnet_jax.data import readers
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.reports import figures


@pytest.fixture(scope='module')
def few_replicates():
  """A thousand replicates take seconds; other tests cover the intervals."""
  few = functools.partial(bootstrap.patient_weights, replicates=20)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(bootstrap, 'patient_weights', few)
    patch.setattr(figures, '_DPI', 20)
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('run') / 'new' / 'report'


@pytest.fixture(scope='module')
def page(folder, few_replicates):
  # One of two readers drew the whole square, the other its upper half.
  def two_readers(nodules):
    whole = nodules.mask > 0
    half = whole & (np.arange(pages.PATCH)[:, None] < 6)
    return list(np.stack([whole, half], axis=1))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(readers, 'masks', two_readers)
    commands = 'train them && show them'
    return pages.write(folder, commands=commands, render=True)
