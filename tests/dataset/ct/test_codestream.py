"""Sizes of images, read from their compressed streams."""

import io

import numpy as np
from PIL import Image
import pytest

from tfds_lidc.ct import codestream


def _encoded(kind, **kwargs):
  stream = io.BytesIO()
  Image.fromarray(np.zeros((5, 9), np.uint8)).save(stream, kind, **kwargs)
  return stream.getvalue()


@pytest.mark.parametrize(
  ('kind', 'kwargs'),
  [
    ('JPEG', {}),
    ('JPEG', {'progressive': True}),
    ('JPEG2000', {'no_jp2': True}),
    ('JPEG2000', {'no_jp2': False}),
  ],
)
def test_size_is_that_of_the_image(kind, kwargs):
  assert codestream.size(_encoded(kind, **kwargs)) == (5, 9, 1)


def test_size_of_jpeg_ls():
  jpeg_ls = pytest.importorskip('jpeg_ls', reason='pyjpegls decodes JPEG-LS')
  stream = jpeg_ls.encode_array(np.zeros((5, 9), np.uint8))
  assert codestream.size(bytes(stream)) == (5, 9, 1)


@pytest.mark.parametrize('kind', ['JPEG', 'JPEG2000'])
def test_truncated_stream_has_no_size(kind):
  whole = _encoded(kind)
  assert {codestream.size(whole[:n]) for n in range(12)} == {None}


def test_box_of_length_zero_ends_the_search():
  # pydicom loops forever on such a box.
  start = b'\0\0\0\x0cjP  \r\n\x87\n'
  assert codestream.size(start + bytes(8)) is None
