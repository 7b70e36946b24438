"""Renders the page that `predict` writes: a table of points and their slices.

The page is one HTML file that needs neither a network connection nor other
files. Pictures are data URIs. Contours are SVG paths over them, so they stay
sharp and can be hidden. JavaScript is only needed to sort the table.
"""

import base64
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import io
from typing import Any
from typing import NamedTuple
from typing import cast

import contourpy
import numpy as np
from PIL import Image

from mtnet_jax.reports import html
from mtnet_jax.reports import overlays

# Colours of activation for malignant and for benign.
_RED, _BLUE = (220, 0, 0), (0, 60, 220)


class Slice(NamedTuple):
  """One slice of a nodule, as the networks saw it.

  Attributes:
    title: says which slice it is.
    hu: (P, P) attenuation.
    outlines: 'fine', 'left-out', 'coarse' and 'readers', those that exist ->
      (P, P) bool mask.
    note: shown below the slice; may be empty.
  """

  title: str
  hu: np.ndarray
  outlines: dict[str, np.ndarray]
  note: str = ''


class Nodule(NamedTuple):
  """One point of the page.

  Attributes:
    record: the point's entry in predictions.json.
    slices: in the order in which they are shown.
    judged: index of the slice whose malignancy was predicted.
    cam: (P, P), the class activation map of that slice.
    uncertainty: (P, P), standard deviation of the averaged fine probabilities
      of that slice; None if nothing was averaged.
  """

  record: Mapping[str, Any]
  slices: list[Slice]
  judged: int
  cam: np.ndarray
  uncertainty: np.ndarray | None


def render(
  nodules: Iterable[Mapping[str, Any]], index: Mapping[str, Any]
) -> str:
  """Returns the HTML of the page of one series.

  Args:
    nodules: from `draw`.
    index: the content of predictions.json.
  """
  return html.render(
    'nodules.html',
    index=index,
    facts=_facts(index),
    colors={'malignant': f'rgb{_RED}', 'benign': f'rgb{_BLUE}'},
    nodules=nodules,
  )


def draw(nodule: Nodule) -> dict[str, Any]:
  """Converts a nodule for `render`: its arrays become pictures as text."""
  return {
    'record': nodule.record,
    'slices': [_drawn(one) for one in nodule.slices],
    'judged': nodule.judged,
    'activation': _png(*_activation(nodule.cam)),
    'disagreement': None
    if nodule.uncertainty is None
    # The standard deviation of probabilities is at most 0.5.
    else _png(_as_bytes(nodule.uncertainty, 0, 0.5)),
  }


def render_many(
  rows: Sequence[Mapping[str, Any]],
  *,
  model: str,
  simulated_ct: bool,
  trained_on_simulated: bool,
  notes: Sequence[str],
) -> str:
  """Returns the HTML of the page that lists the nodules of several series.

  Args:
    rows: of predictions.csv.
    model: name of the model.
    simulated_ct: whether any CT is simulated.
    trained_on_simulated: whether the model was trained on simulated CT.
    notes: caveats about all rows.
  """
  simulated = ''
  if simulated_ct:
    simulated = ', SIMULATED CT'
  elif trained_on_simulated:
    simulated = ', networks trained on SIMULATED CT'
  trained = 'SIMULATED' if trained_on_simulated else 'real'
  return html.render(
    'series.html',
    rows=rows,
    num_series=len({row['series_uid'] for row in rows}),
    model=model,
    simulated=simulated,
    facts=[('Model', f'{model}, trained on {trained} nodules')],
    notes=notes,
  )


def _facts(index):
  """Returns (name, text) of the series and the model."""
  num_slices, rows, columns = index['slices_rows_columns']
  spacing, step = index['pixel_spacing_mm'], index['slice_spacing_mm']
  trained = 'SIMULATED' if index['trained_on_simulated'] else 'real'
  facts = [
    (
      'SIMULATED CT' if index['simulated_ct'] else 'CT',
      f'{num_slices} slices of {rows} x {columns} pixels, {spacing:.3g} mm'
      f' wide, {step:.3g} mm apart',
    ),
    ('Model', f'{index["model"]}, trained on {trained} nodules'),
  ]
  if index['series_uid']:
    facts.insert(1, ('Series', index['series_uid']))
  return facts


def _drawn(one):
  """Converts a `Slice` for the template: its arrays become text."""
  low, high = overlays.WINDOW_HU
  return {
    'title': one.title,
    'note': one.note,
    'side': len(one.hu),
    'image': _png(_as_bytes(one.hu, low, high)),
    'paths': {
      name: path
      for name, mask in one.outlines.items()
      if (path := outline(mask))
    },
  }


def outline(mask: np.ndarray) -> str:
  """Returns the contour of a (P, P) bool mask as an SVG path, '' if empty.

  The contour is at level 0.5 between pixel centres, as in the figures. Pixel
  (row, column) is the square from (column, row) to (column + 1, row + 1).
  """
  # A margin of zeros closes contours at the edge of the patch.
  generator = contourpy.contour_generator(z=np.pad(mask, 1))
  # The default line type, `Separate`, gives an (N, 2) array per line.
  lines = cast(list[np.ndarray], generator.lines(0.5))
  return ''.join(
    'M' + 'L'.join(f'{x:g} {y:g}' for x, y in line[:-1] - 0.5) + 'Z'
    for line in lines
  )


def _as_bytes(values, low, high):
  """Scales values of any shape to uint8, from 0 at `low` to 255 at `high`."""
  scaled = (np.asarray(values, np.float32) - low) / (high - low)
  return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)


def _activation(cam):
  """Returns (P, P, 3) colours and (P, P) opacity of a (P, P) map, all uint8.

  Red is activation for malignant, blue for benign.
  """
  strength = np.abs(cam) / (float(np.abs(cam).max()) or 1.0)
  colors = np.where((cam > 0)[..., None], _RED, _BLUE)
  # Pixels without activation are transparent.
  return colors.astype(np.uint8), _as_bytes(0.7 * strength, 0, 1)


def _png(array, opacity=None):
  """Returns a PNG of (P, P) grey or (P, P, 3) colour values as a data URI."""
  image = Image.fromarray(array)
  if opacity is not None:
    image.putalpha(Image.fromarray(opacity))
  with io.BytesIO() as buffer:
    image.save(buffer, 'png', optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/png;base64,{data}'
