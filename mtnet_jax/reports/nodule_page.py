"""The page that `predict` leaves: a table of the points, and their slices.

One file, which needs neither a network nor the files beside it: pictures are
data URIs, and outlines are drawn over them as paths, so that they stay sharp
and can be hidden. JavaScript sorts the table; without it the page lacks nothing
else.
"""

import base64
import io
from typing import NamedTuple

import contourpy
import numpy as np
from PIL import Image

from mtnet_jax.reports import html
from mtnet_jax.reports import overlays

# Of an activation map: what speaks for malignant, and for benign.
_RED, _BLUE = (220, 0, 0), (0, 60, 220)


class Slice(NamedTuple):
  """One slice of a nodule, as the networks saw it.

  Attributes:
    title: which slice it is.
    hu: (P, P).
    outlines: of 'fine', 'left-out', 'coarse' and 'readers' what there is -> (P,
      P) bool.
    note: a clause, or ''.
  """

  title: str
  hu: np.ndarray
  outlines: dict[str, np.ndarray]
  note: str = ''


class Nodule(NamedTuple):
  """What the page shows of one point.

  Attributes:
    record: of predictions.json.
    slices: of `Slice`, in the order in which they are shown.
    judged: which of them malignancy is of, from 0.
    cam: (P, P), the class activation map of that slice.
    uncertainty: (P, P), the disagreement about its fine mask; None where
      nothing was averaged.
  """

  record: dict
  slices: list[Slice]
  judged: int
  cam: np.ndarray
  uncertainty: np.ndarray | None


def render(nodules, index):
  """The page's HTML.

  Args:
    nodules: of `draw`.
    index: what predictions.json holds.
  """
  return html.render(
    'nodules.html',
    index=index,
    facts=_facts(index),
    colors={'malignant': f'rgb{_RED}', 'benign': f'rgb{_BLUE}'},
    nodules=nodules,
  )


def draw(nodule):
  """What `render` takes of a `Nodule`: pictures as text, without the arrays."""
  return {
    'record': nodule.record,
    'slices': [_drawn(one) for one in nodule.slices],
    'judged': nodule.judged,
    'activation': _png(*_activation(nodule.cam)),
    'disagreement': None
    if nodule.uncertainty is None
    # Half is the most that probabilities can disagree.
    else _png(_as_bytes(nodule.uncertainty, 0, 0.5)),
  }


def render_many(rows, *, model, simulated_ct, trained_on_simulated, notes):
  """The HTML of the page beside the folders of several series.

  Args:
    rows: of predictions.csv.
    model: its name.
    simulated_ct: whether any CT is SIMULATED.
    trained_on_simulated: whether the model was trained on such.
    notes: on all of it, a clause each.
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
  """(name, text) of what was looked at, with what."""
  count, rows, columns = index['slices_rows_columns']
  spacing, step = index['pixel_spacing_mm'], index['slice_spacing_mm']
  trained = 'SIMULATED' if index['trained_on_simulated'] else 'real'
  facts = [
    (
      'SIMULATED CT' if index['simulated_ct'] else 'CT',
      f'{count} slices of {rows} x {columns} pixels, {spacing:.3g} mm wide,'
      f' {step:.3g} mm apart',
    ),
    ('Model', f'{index["model"]}, trained on {trained} nodules'),
  ]
  if index['series_uid']:
    facts.insert(1, ('Series', index['series_uid']))
  return facts


def _drawn(one):
  """A `Slice` as the template wants it: its picture and paths as text."""
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


def outline(mask):
  """The edge of a (P, P) mask as the path of an SVG; '' where it has none.

  At half height between pixels, as in the figures; pixel (row, column) is the
  square from (column, row) to (column + 1, row + 1).
  """
  # A margin of zeros closes the outlines at the patch's edge.
  lines = contourpy.contour_generator(z=np.pad(mask, 1)).lines(0.5)
  return ''.join(
    'M' + 'L'.join(f'{x:g} {y:g}' for x, y in line[:-1] - 0.5) + 'Z'
    for line in lines
  )


def _as_bytes(values, low, high):
  """Values of any shape as uint8, from 0 at `low` to 255 at `high`."""
  scaled = (np.asarray(values, np.float32) - low) / (high - low)
  return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)


def _activation(cam):
  """(P, P, 3) colours and (P, P) opacity of a (P, P) map, all uint8.

  Red speaks for malignant, blue for benign.
  """
  strength = np.abs(cam) / (float(np.abs(cam).max()) or 1.0)
  colors = np.where((cam > 0)[..., None], _RED, _BLUE)
  # What says nothing hides nothing.
  return colors.astype(np.uint8), _as_bytes(0.7 * strength, 0, 1)


def _png(array, opacity=None):
  """A data URI of (P, P) grey values, or of (P, P, 3) colours."""
  image = Image.fromarray(array)
  if opacity is not None:
    image.putalpha(Image.fromarray(opacity))
  with io.BytesIO() as buffer:
    image.save(buffer, 'png', optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/png;base64,{data}'
