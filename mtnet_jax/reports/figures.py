"""What the figures of the report have in common.

Figures are `matplotlib.figure.Figure`s; there is no pyplot and hence no global
state and no display. Where the CT is simulated, the title of every figure says
so.
"""

import io
import threading

from matplotlib import figure as mpl_figure

from mtnet_jax import files
from mtnet_jax import tables

# Okabe & Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN = '#0072B2', '#D55E00', '#009E73'
_DPI = 160
# Several runs of a sweep may end at once, and Matplotlib is not thread-safe.
_DRAWING = threading.Lock()
SIZE = (4.4, 4.0)  # inches, of a figure that stands beside another


def save(figure, path):
  """Writes a PNG whole or not at all.

  Raises:
    errors.InputError: it cannot be written.
  """
  png = io.BytesIO()
  with _DRAWING:
    figure.savefig(png, format='png', dpi=_DPI)
  files.write_bytes(path, png.getvalue())


def with_axes(title, *, simulated, size=SIZE, rows=1, columns=1, **subplots):
  """A titled figure and its axes, by rows."""
  figure = mpl_figure.Figure(size, layout='constrained')
  figure.suptitle(tables.heading(title, simulated), fontsize=10)
  axes = figure.subplots(rows, columns, squeeze=False, **subplots).ravel()
  for ax in axes:
    ax.grid(color='0.9')
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
  return figure, axes
