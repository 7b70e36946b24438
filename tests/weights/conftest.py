"""Fixture: the sources of public weights, by the names of their tables."""

import pytest
import weights_made_up

SOURCES = tuple(weights_made_up.BESIDE)


@pytest.fixture(
  params=[
    # TensorFlow takes long to import.
    pytest.param(name, marks=pytest.mark.extra)
    if name == 'tensorflow_deeplab'
    else name
    for name in SOURCES
  ]
)
def name(request):
  if request.param == 'tensorflow_deeplab':
    pytest.importorskip('tensorflow', reason='needs the extra `tf`')
  return request.param
