"""The paper's figure 6: what each network makes of single nodules."""

from matplotlib import figure as mpl_figure
import numpy as np

from mtnet_jax import metrics
from mtnet_jax import tables

_TRUTH, _PREDICTION = '#F0E442', '#00D5FF'
# Of the examples; the paper gives none.
_WINDOW_HU = (-1000, 400)


def draw(examples, *, order, simulated, names=None):
  """Nodules in rows: CT, readers' mask, predictions, activation map.

  Args:
    examples: list of `examples.Example`, a row each, all of the same networks.
    order: by what they are best and worst.
    simulated: whether the CT is.
    names: of `tables.network_names`.
  """
  names = names or tables.network_names()
  drawn = list(examples[0].masks)
  has_cam = examples[0].cam is not None
  titles = ['CT', 'readers', *(names[name] for name in drawn)]
  if has_cam:
    titles.append(f'{names["class"]} activation')
  rows, columns = len(examples), len(titles)
  side, label, head, foot = 1.8, 0.3, 0.6, 0.2
  width, height = label + columns * side, head + rows * (side + foot)
  figure = mpl_figure.Figure((width, height))
  figure.suptitle(
    tables.heading(f'examples by {order}', simulated),
    fontsize=11,
    y=1 - 0.2 / height,
  )
  # By hand: constrained layout of so many axes takes seconds.
  grid = figure.subplots(
    rows,
    columns,
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
  for ax, title in zip(grid[0], titles, strict=True):
    ax.set_title(title, fontsize=9)
  for axes, example in zip(grid, examples, strict=True):
    record = example.record
    for ax in axes:
      low, high = _WINDOW_HU
      ax.imshow(example.image, cmap='gray', vmin=low, vmax=high)
      ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel(example.place, fontsize=9)
    texts = [
      str(record['nodule_id']),
      f'{record["diameter_mm"]:.1f} mm, {metrics.LABELS[record["label"]]}',
    ]
    _outline(axes[1], example.truth, _TRUTH)
    for ax, name in zip(axes[2:], drawn, strict=False):
      _outline(ax, example.truth, _TRUTH)
      _outline(ax, example.masks[name], _PREDICTION, fill=0.15)
      texts.append(f'Dice {record[f"{name}_dice"]:.3f}')
    if has_cam:
      _activation(axes[-1], example.cam)
      texts.append(f'malignancy {record["malignancy_probability"]:.3f}')
    _small_text(axes, texts)
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
