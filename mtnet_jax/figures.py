"""Figures of the report.

Each function returns a `matplotlib.figure.Figure`; there is no pyplot and
hence no global state and no display. Where the CT is simulated, the title of
every figure says so.
"""

import io

from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np
from sklearn import metrics as sklearn_metrics

from mtnet_jax import files
from mtnet_jax import metrics

# Okabe & Ito's palette, told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREEN = '#0072B2', '#D55E00', '#009E73'
_TRUTH, _PREDICTION = '#F0E442', '#00D5FF'
_DPI = 110
# Of the examples; the paper gives none.
_WINDOW_HU = (-1000, 400)
_EXAMPLE_COLUMNS = (
  'CT',
  'readers',
  'Coarse Seg-net',
  'Fine Seg-net',
  'Class-net activation',
)


def save(figure, path):
  """Writes a PNG whole or not at all.

  Raises:
    errors.InputError: it cannot be written.
  """
  png = io.BytesIO()
  figure.savefig(png, format='png', dpi=_DPI)
  files.write_bytes(path, png.getvalue())


def _heading(text, simulated):
  return f'SIMULATED CT: {text}' if simulated else text


def _figure(title, simulated, size, rows=1):
  figure = mpl_figure.Figure(size, layout='constrained')
  figure.suptitle(_heading(title, simulated), fontsize=10)
  axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
  for ax in axes:
    ax.grid(color='0.9')
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
  return figure, axes


def training_curves(history, *, title, metric, metric_name, simulated):
  """Loss and selection metric of one stage, the kept epoch marked.

  Args:
    history: a row per epoch, of `train.Trainer.run`.
    title: what the stage is called.
    metric: the key by which the best epoch is chosen.
    metric_name: what that is called.
    simulated: whether the CT is.
  """
  figure, (above, below) = _figure(
    f'training of {title}', simulated, (4.4, 4.0), rows=2
  )
  epochs = [row['epoch'] for row in history]
  style = {'marker': '.', 'linewidth': 1.4, 'color': _BLUE}
  above.plot(epochs, [row['loss'] for row in history], **style)
  below.plot(epochs, [row[metric] for row in history], **style)
  kept = kept_row(history)
  for ax in (above, below):
    ax.axvline(kept['epoch'], color=_ORANGE, linestyle=':', linewidth=1.2)
  below.plot(
    kept['epoch'],
    kept[metric],
    'o',
    color=_ORANGE,
    label=f'kept: epoch {kept["epoch"]}, {kept[metric]:.3f}',
  )
  below.legend(fontsize=8)
  above.set_ylabel('training loss', fontsize=9)
  below.set_ylabel(f'validation {metric_name}', fontsize=9)
  below.set_xlabel('epoch')
  below.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  return figure


def kept_row(history):
  """The epoch whose variables were kept: the last that was the best yet."""
  return [row for row in history if row['best']][-1]


def roc(labels, curves, *, simulated):
  """ROC curves on one pair of axes.

  Args:
    labels: (N,) of 0 and 1, both present.
    curves: name -> ((N,) scores, the score from which on a nodule is called
      malignant).
    simulated: whether the CT is.
  """
  figure, (ax,) = _figure('ROC of malignancy', simulated, (4.4, 4.0))
  labels = np.asarray(labels)
  ax.plot([0, 1], [0, 1], color='0.7', linestyle=':', linewidth=1)
  styles = ((_BLUE, '-'), (_ORANGE, '--'), (_GREEN, '-.'))
  for (name, (scores, threshold)), (color, line) in zip(
    curves.items(), styles, strict=False
  ):
    scores = np.asarray(scores)
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(labels, scores)
    area = sklearn_metrics.auc(false_rate, true_rate)
    ax.plot(
      false_rate,
      true_rate,
      color=color,
      linestyle=line,
      label=f'{name}, AUC {area:.3f}',
    )
    called = scores >= threshold
    ax.plot(
      called[labels == 0].mean(),
      called[labels == 1].mean(),
      'o',
      color=color,
      clip_on=False,
    )
  ax.legend(loc='lower right', fontsize=8)
  ax.set(
    xlabel='1 - specificity',
    ylabel='sensitivity',
    xlim=(0, 1),
    ylim=(0, 1.01),
    aspect='equal',
  )
  return figure


def dice_by_diameter(records, *, simulated):
  """Dice of every test nodule against its diameter."""
  figure, (ax,) = _figure('Dice by diameter', simulated, (4.4, 4.0))
  diameters = [record['diameter_mm'] for record in records]
  for name, color, marker in (
    ('coarse', _ORANGE, 'x'),
    ('fine', _BLUE, 'o'),
  ):
    ax.scatter(
      diameters,
      [record[f'{name}_dice'] for record in records],
      s=16,
      marker=marker,
      color=color,
      alpha=0.6,
      linewidths=1,
      label=f'{name.capitalize()} Seg-net',
    )
  ax.set(
    xlabel="mean of the readers' diameters, mm",
    ylabel='Dice',
    ylim=(-0.03, 1.03),
  )
  ax.legend(fontsize=8)
  return figure


def examples(chosen, *, records, nodules, masks, cam, simulated):
  """Nodules in rows: CT, readers' mask, both predictions, activation map.

  Args:
    chosen: list of (place, index), a row each.
    records: a dict per nodule, of `evaluate.make_records`.
    nodules: `input_pipeline.Nodules`.
    masks: 'coarse' and 'fine' -> (N, P, P) booleans.
    cam: (N, P, P) class activation maps.
    simulated: whether the CT is.
  """
  rows, columns = len(chosen), len(_EXAMPLE_COLUMNS)
  side, label, head, foot = 1.8, 0.3, 0.6, 0.2
  width, height = label + columns * side, head + rows * (side + foot)
  figure = mpl_figure.Figure((width, height))
  figure.suptitle(
    _heading('examples by Dice of Fine Seg-net', simulated),
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
  for ax, title in zip(grid[0], _EXAMPLE_COLUMNS, strict=True):
    ax.set_title(title, fontsize=9)
  for axes, (place, index) in zip(grid, chosen, strict=True):
    record, truth = records[index], nodules.mask[index] > 0
    for ax in axes:
      low, high = _WINDOW_HU
      ax.imshow(nodules.image[index], cmap='gray', vmin=low, vmax=high)
      ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel(place, fontsize=9)
    for ax in axes[1:4]:
      _outline(ax, truth, _TRUTH)
    for ax, name in zip(axes[2:4], ('coarse', 'fine'), strict=True):
      _outline(ax, masks[name][index], _PREDICTION, fill=0.15)
    _activation(axes[4], cam[index])
    _small_text(
      axes,
      (
        str(record['nodule_id']),
        f'{record["diameter_mm"]:.1f} mm, {metrics.LABELS[record["label"]]}',
        f'Dice {record["coarse_dice"]:.3f}',
        f'Dice {record["fine_dice"]:.3f}',
        f'malignancy {record["malignancy_probability"]:.3f}',
      ),
    )
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
