"""Draws masks and activation maps over CT, a row per nodule (paper, Figure 6).

As in `figures`, there is no pyplot, and the title says if CT is simulated.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import NamedTuple

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import patches as mpl_patches
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.reports import tables

if TYPE_CHECKING:
  from mtnet_jax.reports import examples as examples_lib

_TRUTH, _PREDICTION = '#F0E442', '#00D5FF'
# The ends of the colour map in `activation`.
_MALIGNANT, _BENIGN = '#FF0000', '#0000FF'
WINDOW_HU = (-1000, 400)  # The paper does not say which window it shows.


class Row(NamedTuple):
  """One nodule.

  Attributes:
    label: text at the left of the row.
    hu: (P, P) attenuation.
    truth: (P, P) bool, the readers' mask; None if there is none.
    masks: 'coarse' and 'fine', those that exist -> (P, P) bool.
    cam: (P, P) class activation map; None without a classifier.
    texts: a short text below each picture.
    uncertainty: (P, P), standard deviation of the averaged fine probabilities;
      None if nothing was averaged.
  """

  label: str
  hu: np.ndarray
  truth: np.ndarray | None
  masks: dict[str, np.ndarray]
  cam: np.ndarray | None
  texts: tuple[str, ...]
  uncertainty: np.ndarray | None = None


def draw(
  rows: Sequence[Row],
  *,
  title: str,
  simulated: bool,
  names: Mapping[str, str] | None = None,
) -> mpl_figure.Figure:
  """Draws nodules in rows: CT, readers' mask, predictions, activation map.

  Args:
    rows: one per nodule, all with the same kinds of pictures.
    title: of the figure.
    simulated: whether the CT is simulated.
    names: from `tables.network_names`; MT-Net's by default.
  """
  names = names or tables.network_names()
  titles = ['CT']
  if rows[0].truth is not None:
    titles.append('readers')
  titles.extend(names[name] for name in rows[0].masks)
  if rows[0].cam is not None:
    titles.append(f'{names["class"]} activation')
  if rows[0].uncertainty is not None:
    titles.append('disagreement, 0 to 0.5')
  side, label, head, foot = 1.8, 0.3, 0.6, 0.2
  legend = 0.0 if rows[0].cam is None else 0.25
  width = label + len(titles) * side
  height = head + len(rows) * (side + foot) + legend
  figure = mpl_figure.Figure((width, height))
  figure.suptitle(
    tables.heading(title, simulated), fontsize=11, y=1 - 0.2 / height
  ).set_parse_math(False)
  # A constrained layout of so many axes takes seconds.
  grid = figure.subplots(
    len(rows),
    len(titles),
    squeeze=False,
    gridspec_kw={
      'left': label / width,
      'right': 1 - 0.02,
      'top': 1 - head / height,
      'bottom': (foot + legend) / height,
      'wspace': 0.04,
      'hspace': foot / side,
    },
  )
  for ax, above in zip(grid[0], titles, strict=True):
    ax.set_title(above, fontsize=9)
  for axes, row in zip(grid, rows, strict=True):
    _draw_row(list(axes), row)
    _small_text(axes, row.texts)
  if legend:
    _explain_activation(figure)
  return figure


def _explain_activation(figure):
  """Adds a legend of the colours of `activation` below all pictures."""
  figure.legend(
    handles=[
      mpl_patches.Patch(color=_MALIGNANT, label='activation for malignant'),
      mpl_patches.Patch(color=_BENIGN, label='for benign'),
    ],
    loc='lower right',
    ncols=2,
    fontsize=7,
    frameon=False,
    borderaxespad=0.1,
  )


def _draw_row(axes, row):
  for ax in axes:
    low, high = WINDOW_HU
    ax.imshow(row.hu, cmap='gray', vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])
  axes.pop(0).set_ylabel(row.label, fontsize=9)
  if row.uncertainty is not None:
    # The standard deviation of probabilities is at most 0.5.
    axes.pop().imshow(row.uncertainty, cmap='magma', vmin=0, vmax=0.5)
  if row.cam is not None:
    activation(axes.pop(), row.cam)
  if row.truth is not None:
    for ax in axes:
      outline(ax, row.truth, _TRUTH)
    axes.pop(0)
  for ax, mask in zip(axes, row.masks.values(), strict=True):
    outline(ax, mask, _PREDICTION, fill=0.15)


def outline(
  ax: mpl_axes.Axes, mask: np.ndarray, color: str, *, fill: float = 0.0
) -> None:
  """Draws the contour of a mask.

  Args:
    ax: where to draw.
    mask: (P, P) bool.
    color: of the contour and the filled area.
    fill: opacity of the filled area, from 0 to 1.
  """
  if not mask.any():  # Matplotlib would warn that there is no contour.
    return
  # A margin of zeros closes contours at the edge of the patch.
  rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
  padded = np.pad(mask, 1)
  ax.contour(columns, rows, padded, [0.5], colors=color, linewidths=1)
  if fill:
    ax.contourf(columns, rows, padded, [0.5, 1.5], colors=color, alpha=fill)
  ax.set(xlim=(-0.5, columns[-1] - 0.5), ylim=(rows[-1] - 0.5, -0.5))


def activation(ax: mpl_axes.Axes, cam: np.ndarray) -> None:
  """Draws a (P, P) activation map, scaled by its largest magnitude.

  Red is activation for malignant, blue for benign.
  """
  largest = float(np.abs(cam).max()) or 1.0
  ax.imshow(
    cam,
    cmap='bwr',
    vmin=-largest,
    vmax=largest,
    # Pixels without activation are transparent.
    alpha=0.7 * np.abs(cam) / largest,
  )


def _small_text(axes, texts):
  for ax, text in zip(axes, texts, strict=True):
    short = text if len(text) <= 30 else text[:27] + '...'
    # Names come from the data, where $ does not start a formula.
    ax.set_xlabel(short, fontsize=7, labelpad=2).set_parse_math(False)


def draw_examples(
  examples: 'Sequence[examples_lib.Example]',
  *,
  order: str,
  simulated: bool,
  names: Mapping[str, str] | None = None,
) -> mpl_figure.Figure:
  """Draws the report's example nodules, a row each.

  Args:
    examples: all from the same networks.
    order: name of the value that ranks them, from `examples.order_by`.
    simulated: whether the CT is simulated.
    names: from `tables.network_names`; MT-Net's by default.
  """
  return draw(
    [_example_row(example) for example in examples],
    title=f'examples by {order}',
    simulated=simulated,
    names=names,
  )


def _example_row(example):
  record = example.record
  texts = [
    str(record['nodule_id']),
    f'{record["diameter_mm"]:.1f} mm, {metrics.LABELS[record["label"]]}',
    *(f'Dice {record[f"{name}_dice"]:.3f}' for name in example.masks),
  ]
  if example.cam is not None:
    texts.append(f'malignancy {record["malignancy_probability"]:.3f}')
  return Row(
    label=example.rank,
    hu=example.image,
    truth=example.truth,
    masks=example.masks,
    cam=example.cam,
    texts=tuple(texts),
  )
