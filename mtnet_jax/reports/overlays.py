"""Masks and activation maps over the CT, a nodule a row (paper, Figure 6).

As in `figures`: no pyplot, and what is simulated says so.
"""

from typing import NamedTuple

from matplotlib import figure as mpl_figure
from matplotlib import patches as mpl_patches
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.reports import tables

_TRUTH, _PREDICTION = '#F0E442', '#00D5FF'
# The ends of the colour map of `activation`.
_MALIGNANT, _BENIGN = '#FF0000', '#0000FF'
WINDOW_HU = (-1000, 400)  # the paper gives none


class Row(NamedTuple):
  """One nodule.

  Attributes:
    label: beside the row.
    hu: (P, P).
    truth: (P, P) bool, the readers' mask; None where there is none.
    masks: of 'coarse' and 'fine' what there is -> (P, P) bool.
    cam: (P, P), class activation map; None without a classifier.
    uncertainty: (P, P), standard deviation of the fine probability among
      what was averaged; None where nothing was.
    texts: a short one below each picture.
  """

  label: str
  hu: np.ndarray
  truth: np.ndarray | None
  masks: dict[str, np.ndarray]
  cam: np.ndarray | None
  texts: tuple[str, ...]
  uncertainty: np.ndarray | None = None


def draw(rows, *, title, simulated, names=None):
  """Draws nodules in rows: CT, readers' mask, predictions, activation map.

  Args:
    rows: of `Row`, all with the same pictures.
    title: of the figure.
    simulated: whether the CT is.
    names: of `tables.network_names`.

  Returns:
    A `matplotlib.figure.Figure`.
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
  # By hand: constrained layout of so many axes takes seconds.
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
  """Says below all pictures what the colours of `activation` mean."""
  figure.legend(
    handles=[
      mpl_patches.Patch(
        color=_MALIGNANT, label='activation speaks for malignant'
      ),
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
    # Half is the most that probabilities can disagree.
    axes.pop().imshow(row.uncertainty, cmap='magma', vmin=0, vmax=0.5)
  if row.cam is not None:
    activation(axes.pop(), row.cam)
  if row.truth is not None:
    for ax in axes:
      outline(ax, row.truth, _TRUTH)
    axes.pop(0)
  for ax, mask in zip(axes, row.masks.values(), strict=True):
    outline(ax, mask, _PREDICTION, fill=0.15)


def outline(ax, mask, color, *, fill=0.0):
  """Draws the edge of a (P, P) mask, and fills it as opaquely as `fill`."""
  if not mask.any():  # matplotlib would warn that there is no contour.
    return
  # A margin of zeros closes the outlines at the patch's edge.
  rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
  padded = np.pad(mask, 1)
  ax.contour(columns, rows, padded, [0.5], colors=color, linewidths=1)
  if fill:
    ax.contourf(columns, rows, padded, [0.5, 1.5], colors=color, alpha=fill)
  ax.set(xlim=(-0.5, columns[-1] - 0.5), ylim=(rows[-1] - 0.5, -0.5))


def activation(ax, cam):
  """Draws a (P, P) activation map, scaled by itself.

  Red speaks for malignant, blue for benign.
  """
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


def draw_examples(examples, *, order, simulated, names=None):
  """Nodules in rows: CT, readers' mask, predictions, activation map.

  Args:
    examples: list of `examples.Example`, a row each, all of the same networks.
    order: by what they are best and worst.
    simulated: whether the CT is.
    names: of `tables.network_names`.
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
