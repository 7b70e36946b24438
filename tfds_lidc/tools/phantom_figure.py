"""Draws the figure of `compare_phantom`: contours, phantoms, and histograms.

The figure shows no pixel of CT, only the distribution of their attenuation.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from tfds_lidc.nodules import selection
from tfds_lidc.tools import hu_statistics

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

NUM_DRAWN = 4
WINDOW_HU = (-1350, 150)  # the usual lung window
CREDIT = (
  'Outlines, and the attenuation of CT in the histograms: LIDC-IDRI, The Cancer'
  ' Imaging Archive,\ndoi.org/10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0'
)
_REAL, _SIMULATED = '#1b5e9b', '#d1642c'


def draw(
  nodules: Sequence[selection.Nodule],
  real: hu_statistics.Sample,
  simulated: hu_statistics.Sample,
) -> 'mpl_figure.Figure':
  """Draws contours, phantoms, and histograms below them.

  Args:
    nodules: n nodules.
    real: their sample in CT; only contours and histograms are drawn.
    simulated: their SIMULATED sample.

  Returns:
    The figure.
  """
  from matplotlib import figure as mpl_figure

  figure = mpl_figure.Figure(figsize=(8, 6.6), layout='constrained')
  axes = figure.subplots(3, NUM_DRAWN, height_ratios=(1, 1, 0.8))
  for axis in axes[:2].ravel():
    axis.set_axis_off()
  chosen = _various(nodules)
  for column, index in zip(axes.T, chosen, strict=False):
    _outlines(column[0], real.votes[index])
    _phantom(column[1], simulated.images[index], simulated.masks[index])
    nodule = nodules[index]
    texture = np.mean(nodule.texture)
    column[0].set_title(
      f'{nodule.diameter_mm:.0f} mm, texture {texture:.1f}', fontsize=9
    )
  style = {'weight': 'bold', 'fontsize': 11}
  axes[0, 0].set_ylabel("readers' outlines", color=_REAL, **style)
  axes[1, 0].set_ylabel('SIMULATED', color=_SIMULATED, **style)
  for axis, (name, hu) in zip(axes[2], real.hu.items(), strict=True):
    _histogram(axis, name, hu, simulated.hu[name])
  axes[2, 1].legend(fontsize=8, frameon=False, loc='upper right')
  axes[2, 0].set_ylabel('share of pixels', fontsize=9)
  figure.supxlabel(CREDIT, fontsize=7.5, color='0.35')
  return figure


def _various(nodules: Sequence[selection.Nodule]) -> list[int]:
  """Chooses nodules from non-solid to solid, each large for its kind."""
  textures = np.array([np.mean(nodule.texture) for nodule in nodules])
  edges = np.linspace(1, 5, NUM_DRAWN + 1)[1:-1]
  kinds = np.digitize(textures, edges)
  found = [np.flatnonzero(kinds == kind) for kind in range(NUM_DRAWN)]
  # Nodules are sorted by size; the one at a tenth of the list is large, but no
  # outlier.
  return [indices[len(indices) // 10] for indices in found if len(indices)]


def _outlines(axis: Any, votes: np.ndarray) -> None:
  axis.set_axis_on()
  for min_votes in range(1, votes.max() + 1):
    axis.contour(
      votes >= min_votes, [0.5], colors=[_REAL], linewidths=0.9, alpha=0.7
    )
  side = len(votes)
  axis.set(
    xticks=[],
    yticks=[],
    xlim=(-0.5, side - 0.5),
    ylim=(side - 0.5, -0.5),
    aspect='equal',
  )


def _phantom(axis: Any, image: np.ndarray, mask: np.ndarray) -> None:
  low, high = WINDOW_HU
  axis.set_axis_on()
  axis.imshow(image, 'gray', vmin=low, vmax=high, interpolation='bicubic')
  axis.contour(mask, [0.5], colors=[_SIMULATED], linewidths=0.9)
  axis.set(xticks=[], yticks=[])


def _histogram(
  axis: Any, name: str, real: np.ndarray, simulated: np.ndarray
) -> None:
  if not (len(real) and len(simulated)):
    axis.set_axis_off()
    return
  both = np.concatenate([real, simulated])
  low, high = np.quantile(both, (0.004, 0.985))
  bins = np.linspace(low, high, 30)
  for hu, label, colour in (
    (real, 'real CT', _REAL),
    (simulated, 'SIMULATED', _SIMULATED),
  ):
    weights = np.full(len(hu), 1 / len(hu))
    axis.hist(hu, bins, weights=weights, color=colour, alpha=0.25)
    axis.hist(
      hu, bins, weights=weights, color=colour, histtype='step', label=label
    )
  title = name if name in ('lung', 'ring') else f'{name}: core'
  axis.set_title(title, fontsize=9)
  axis.set_xlabel('HU', fontsize=9)
  axis.set_yticks([])
  axis.tick_params(labelsize=8)
  axis.spines[['top', 'right', 'left']].set_visible(False)
