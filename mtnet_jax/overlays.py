"""Masks and activation maps over the CT, a nodule a row (paper, Figure 6).

As in `figures`: no pyplot, and what is simulated says so.
"""

from typing import NamedTuple

from matplotlib import figure as mpl_figure
import numpy as np

# Okabe & Ito's palette, told apart by colour-blind readers too.
_TRUTH, _PREDICTION = '#F0E442', '#00D5FF'
_WINDOW_HU = (-1000, 400)  # the paper gives none


class Row(NamedTuple):
  """One nodule.

  Attributes:
    label: beside the row.
    hu: (P, P).
    truth: (P, P) bool, the readers' mask; None in every row where there is
      none.
    coarse, fine: (P, P) bool.
    cam: (P, P), class activation map.
    texts: a short one below each picture; without truth one less.
  """

  label: str
  hu: np.ndarray
  truth: np.ndarray | None
  coarse: np.ndarray
  fine: np.ndarray
  cam: np.ndarray
  texts: tuple[str, ...]


def heading(text, simulated):
  """The title of a figure."""
  return f'SIMULATED CT: {text}' if simulated else text


def draw(rows, *, title, simulated):
  """Draws nodules in rows: CT, readers' mask, both predictions, activation map.

  Args:
    rows: of `Row`, all with truth or all without.
    title: of the figure.
    simulated: whether the CT is.

  Returns:
    A `matplotlib.figure.Figure`.
  """
  with_truth = rows[0].truth is not None
  names = ('Coarse Seg-net', 'Fine Seg-net', 'Class-net activation')
  names = ('CT', 'readers', *names) if with_truth else ('CT', *names)
  side, label, head, foot = 1.8, 0.3, 0.6, 0.2
  width = label + len(names) * side
  height = head + len(rows) * (side + foot)
  figure = mpl_figure.Figure((width, height))
  figure.suptitle(
    heading(title, simulated), fontsize=11, y=1 - 0.2 / height
  ).set_parse_math(False)
  # By hand: constrained layout of so many axes takes seconds.
  grid = figure.subplots(
    len(rows),
    len(names),
    squeeze=False,
    gridspec_kw={
      'left': label / width,
      'right': 1 - 0.02,
      'top': 1 - head / height,
      'bottom': foot / height,
      'wspace': 0.04,
      'hspace': foot / side,
    },
  )
  for ax, name in zip(grid[0], names, strict=True):
    ax.set_title(name, fontsize=9)
  for axes, row in zip(grid, rows, strict=True):
    for ax in axes:
      low, high = _WINDOW_HU
      ax.imshow(row.hu, cmap='gray', vmin=low, vmax=high)
      ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel(row.label, fontsize=9)
    if with_truth:
      for ax in axes[1:-1]:
        _outline(ax, row.truth, _TRUTH)
    for ax, mask in zip(axes[-3:-1], (row.coarse, row.fine), strict=True):
      _outline(ax, mask, _PREDICTION, fill=0.15)
    _activation(axes[-1], row.cam)
    _small_text(axes, row.texts)
  return figure


def _outline(ax, mask, color, *, fill=0.0):
  if not mask.any():  # matplotlib would warn that there is no contour.
    return
  # A margin of zeros closes the outlines at the patch's edge.
  rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
  padded = np.pad(mask, 1)
  ax.contour(columns, rows, padded, [0.5], colors=color, linewidths=1)
  if fill:
    ax.contourf(columns, rows, padded, [0.5, 1.5], colors=color, alpha=fill)
  ax.set(xlim=(-0.5, columns[-1] - 0.5), ylim=(rows[-1] - 0.5, -0.5))


def _activation(ax, cam):
  """Red speaks for malignant, blue for benign, each map scaled by itself."""
  largest = float(np.abs(cam).max()) or 1.0
  ax.imshow(
    cam,
    cmap='bwr',
    vmin=-largest,
    vmax=largest,
    alpha=0.7 * np.abs(cam) / largest,  # What says nothing hides nothing.
  )


def _small_text(axes, texts):
  for ax, text in zip(axes, texts, strict=True):
    short = text if len(text) <= 30 else text[:27] + '...'
    # Names come from data: a $ in them is no formula.
    ax.set_xlabel(short, fontsize=7, labelpad=2).set_parse_math(False)
