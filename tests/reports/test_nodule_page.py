"""The page of `predict` shows the networks' input and their masks."""

import base64
import io
import re

from matplotlib import path as mpl_path
import numpy as np
import pages
from PIL import Image
import pytest

from mtnet_jax.reports import nodule_page

_RECORD = {
  'id': 'a<b',
  'status': 'ok',
  'malignancy_probability': 0.25,
  'voxel': {'slice': 3},
  'mask': {
    'diameter_mm': 4.26,
    'volume_mm3': 31.5,
    'volume_is_lower_bound': False,
    'slices': 2,
  },
  'notes': [],
  'figure': 'a<b.png',
}
_INDEX = {
  'mtnet_jax': '9.8.7',
  'model': 'm & n',
  'trained_on_simulated': False,
  'series_uid': '1.2.3',
  'simulated_ct': False,
  'slices_rows_columns': (40, 512, 512),
  'pixel_spacing_mm': 0.703125,
  'slice_spacing_mm': 2.5,
  'files': ['index.html', 'segmentation.dcm', 'a<b.png'],
  'notes': [],
  'failed': [],
}


def _slice(title='slice 3, z = 1 mm', hu=None, **outlines):
  hu = np.zeros((16, 16), np.int16) if hu is None else hu
  return nodule_page.Slice(title, hu, outlines, '4.3 mm')


def _nodule(record=(), slices=(), cam=None, uncertainty=None):
  slices = list(slices) or [_slice()]
  if cam is None:
    cam = np.zeros((16, 16), np.float32)
  record = {**_RECORD, **dict(record)}
  return nodule_page.Nodule(record, slices, 0, cam, uncertainty)


def _page(tmp_path, *nodules, **index):
  index = {**_INDEX, 'points': [x.record for x in nodules], **index}
  path = tmp_path / 'index.html'
  path.write_text(
    nodule_page.render(map(nodule_page.draw, nodules), index), encoding='utf-8'
  )
  return pages.Page(path)


def _images(page):
  """Returns the page's pictures as arrays."""
  found = re.findall(r'href="data:image/png;base64,([^"]+)"', page.html)
  return [
    np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found
  ]


def _inside(path, side):
  """Returns the mask of an SVG path by the even-odd rule at pixel centres."""
  crossings = np.zeros((side, side), int)
  centres = np.argwhere(np.ones((side, side)))[:, ::-1] + 0.5
  for part in re.findall(r'M([^Z]+)Z', path):
    points = [[float(x) for x in pair.split()] for pair in part.split('L')]
    polygon = mpl_path.Path([*points, points[0]], closed=True)
    crossings += polygon.contains_points(centres).reshape(side, side)
  return crossings % 2 == 1


def test_an_outline_runs_between_the_pixels():
  mask = np.zeros((4, 4), bool)
  mask[1, 2] = True
  # The middles of the edges of the square from (2, 1) to (3, 2).
  points = set(nodule_page.outline(mask).strip('MZ').split('L'))
  assert points == {'2 1.5', '2.5 1', '3 1.5', '2.5 2'}
  assert nodule_page.outline(np.zeros((4, 4), bool)) == ''


@pytest.mark.parametrize('share', [0.3, 0.7])
def test_an_outline_contains_exactly_the_pixels_of_its_mask(share):
  mask = np.random.default_rng(1).random((24, 24)) < share
  np.testing.assert_array_equal(
    _inside(nodule_page.outline(mask), 24), mask, strict=True
  )
  # A mask with a hole that reaches the edges of the patch.
  everything = np.ones((24, 24), bool)
  everything[5:9, 7:8] = False
  np.testing.assert_array_equal(
    _inside(nodule_page.outline(everything), 24), everything
  )


def test_slices_are_windowed_and_complete(tmp_path):
  hu = np.full((16, 16), -1000, np.int16)
  hu[2, 3:7] = -300, 400, 3000, -2000
  page = _page(tmp_path, _nodule(slices=[_slice(hu=hu), _slice('other')]))
  first, second, _ = _images(page)
  # The middle of the window is the middle of 0 to 255.
  assert first[2, 2:8].tolist() == [0, 128, 255, 255, 0, 0]
  # 0 HU is 1000 / 1400 of the window.
  assert (second == round(255 / 1.4)).all()


def test_the_activation_map_is_more_opaque_where_it_is_stronger(tmp_path):
  cam = np.zeros((16, 16), np.float32)
  cam[1, 1], cam[2, 2] = -2, 4
  page = _page(tmp_path, _nodule(cam=cam))
  activation = _images(page)[-1]
  (red, _, blue, opacity), (red_less, _, blue_more, half) = (
    activation[2, 2].tolist(),
    activation[1, 1].tolist(),
  )
  assert red > blue and blue_more > red_less
  # The opacity is 0.7 of 255 at the maximum, and half of it at half of that.
  assert (opacity, half) == (178, 89)
  assert np.count_nonzero(activation[..., 3]) == 2


def test_disagreement_is_shown_if_outputs_were_averaged(tmp_path):
  uncertainty = np.zeros((16, 16), np.float32)
  uncertainty[4, 4], uncertainty[5, 5] = 0.5, 0.25
  record = {
    'malignancy_probability_range': [0.125, 0.5],
    'malignancy_probability_members': [0.125, 0.5, 0.3],
  }
  page = _page(tmp_path, _nodule(record, uncertainty=uncertainty))
  shown = _images(page)[-1]
  assert (shown[4, 4], shown[5, 5], shown[0, 0]) == (255, 128, 0)
  assert page.row('a<b')[3] == '0.250 (0.125–0.500)'
  assert '3 outputs, 0.125 to 0.500' in page.text
  assert 'where they disagree' in page.text


def test_every_point_has_a_row_even_if_it_failed(tmp_path):
  nothing = {
    'id': 'none',
    'status': 'nothing found',
    'mask': {'diameter_mm': None, 'volume_mm3': None, 'slices': 0},
    'notes': ['the networks mark nothing there'],
  }
  readers = {'readers': {'diameter_mm': 5.0, 'malignancy_rating_mean': 3.5}}
  dice = {'coarse_dice': 0.5, 'fine_dice': 0.75}
  page = _page(
    tmp_path,
    _nodule({**readers, **dice}),
    # No reader has marked this one.
    _nodule(nothing),
    failed=[{'id': 'far', 'reason': 'row 500 is outside'}],
    notes=['no DICOM Segmentation: <why>'],
  )
  head, *rows = page.rows
  assert head[1:5] == ['Diameter, mm', 'Volume, mm³', 'Slices', 'Malignancy']
  assert head[5:] == ['Dice, coarse', 'Dice, fine', 'Notes']
  assert {len(row) for row in page.rows} == {8}
  assert rows[0] == 'a<b|4.3|32|2|0.250|0.500|0.750|'.split('|')
  assert rows[1] == [
    *('none', '–', '–', '–', '0.250', '–', '–'),
    'nothing found: the networks mark nothing there',
  ]
  assert rows[2] == ['far', *'––––––', 'not done: row 500 is outside']
  assert 'no DICOM Segmentation: <why>' in page.text


def test_sizes_that_were_not_measured_have_no_number(tmp_path):
  nothing = {
    'diameter_mm': None,
    'volume_mm3': None,
    'volume_is_lower_bound': None,
  }
  bound = {**_RECORD['mask'], 'volume_is_lower_bound': True}
  page = _page(
    tmp_path,
    _nodule({'id': 'leak', 'mask': {**_RECORD['mask'], **nothing}}),
    _nodule({'id': 'some', 'mask': bound}),
    _nodule({'id': 'away', 'mask': {**nothing, 'diameter_mm': 3, 'slices': 9}}),
  )
  assert page.row('away')[:3] == ['3.0', 'not measured', '9']
  assert page.row('leak')[:3] == ['not measured', 'not measured', '2']
  assert page.row('some')[:3] == ['4.3', '> 32', '2']
  # The table is sorted by these values; rows without a value come last.
  values = re.findall(r'<td data-value="([^"]*)">', page.html)
  assert values[:4] == ['', '', '2', '0.25']
  assert values[4:8] == ['4.26', '31.5', '2', '0.25']
  assert values[8:] == ['3', '', '9', '0.25']
  first, second, third = page.html.split('<article')[1:]
  assert '3.0 mm on slice 3,\n    volume not measured.' in third
  assert 'sizes not measured' in first and 'mm³' not in first
  assert '4.3 mm on slice 3,\n    &gt; 32 mm³.' in second


def test_the_colours_of_the_activation_map_are_explained(tmp_path):
  cam = np.zeros((16, 16), np.float32)
  cam[1, 1], cam[2, 2] = -1, 1  # for benign, for malignant
  page = _page(tmp_path, _nodule(cam=cam))
  activation = _images(page)[-1]
  for name, at in (('benign', (1, 1)), ('malignant', (2, 2))):
    color = ', '.join(str(x) for x in activation[at][:3])
    assert f'.swatch.{name} {{ background: rgb({color}); }}' in page.html
    assert re.search(rf'swatch {name}"></span>[^<]*for {name}', page.html)
  assert 'red malignant, blue benign' in page.text


def test_each_outline_has_its_own_class(tmp_path):
  masks = np.zeros((4, 16, 16), bool)
  masks[0, 2, 2] = masks[1, 3, 3] = masks[2, 4, 4] = True
  one = _slice(
    fine=masks[0], coarse=masks[1], readers=masks[2], **{'left-out': masks[3]}
  )
  page = _page(tmp_path, _nodule(slices=[one]))
  paths = dict(re.findall(r'<path class="([^"]+)" d="([^"]+)"', page.html))
  # An empty mask has no path.
  assert paths == {
    name: nodule_page.outline(mask)
    for name, mask in zip(('fine', 'coarse', 'readers'), masks, strict=False)
  }


@pytest.mark.parametrize(
  ('ct', 'trained', 'expected'),
  [
    (True, True, ['SIMULATED CT', 'trained only on SIMULATED attenuation']),
    (True, False, ['SIMULATED CT']),
    (False, True, ['Trained on SIMULATED CT']),
    (False, False, []),
  ],
)
def test_simulated_ct_is_marked(tmp_path, ct, trained, expected):
  uncertainty = np.zeros((16, 16), np.float32)
  page = _page(
    tmp_path,
    _nodule(uncertainty=uncertainty),
    simulated_ct=ct,
    trained_on_simulated=trained,
  )
  assert all(words in page.text for words in expected)
  assert ('SIMULATED' in page.text) == bool(expected)
  # Every picture and title says so, since a reader may see only one of them.
  pictures = re.findall(r'role="img"\s+aria-label="([^"]+)"', page.html)
  assert len(pictures) == 3
  titles = re.findall(r'<(?:h3|title|label)>([^<]+)', page.html)
  for text in pictures + titles:
    assert ('SIMULATED' in text) == bool(expected)
  (legend,) = re.findall(r'<p class="legend">.*?</p>', page.html, re.DOTALL)
  assert ('SIMULATED' in legend) == bool(expected)


def test_the_page_is_self_contained_and_escapes_text(tmp_path):
  page = _page(
    tmp_path,
    _nodule({'notes': ['<script>alert(1)</script>']}),
    series_uid='<b>',
  )
  assert page.html.count('<script') == 1
  assert '<b>' not in page.html and 'm &amp; n' in page.html
  assert not page.images
  assert set(page.links) == {
    'predictions.json',
    'segmentation.dcm',
    'a%3Cb.png',
    '#n1',
    '#points',
  }
  assert not re.search(r'(src|url\(|@import|https?:)', page.html)
  assert 'not a medical device' in page.text
