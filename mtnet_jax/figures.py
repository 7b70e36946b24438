"""Figures of the report.

Each function returns a `matplotlib.figure.Figure`; there is no pyplot and
hence no global state and no display. Where the CT is simulated, the title of
every figure says so.
"""

import io

from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from mtnet_jax import files
from mtnet_jax import metrics
from mtnet_jax import overlays

# Okabe & Ito's palette, told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREEN = '#0072B2', '#D55E00', '#009E73'
_DPI = 110


def save(figure, path):
  """Writes a PNG whole or not at all.

  Raises:
    errors.InputError: it cannot be written.
  """
  png = io.BytesIO()
  figure.savefig(png, format='png', dpi=_DPI)
  files.write_bytes(path, png.getvalue())


def _figure(title, simulated, size, rows=1):
  figure = mpl_figure.Figure(size, layout='constrained')
  figure.suptitle(overlays.heading(title, simulated), fontsize=10)
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
  # Takes longer to import than the rest, and prediction needs none of it.
  from sklearn import metrics as sklearn_metrics

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
  rows = []
  for place, index in chosen:
    record = records[index]
    rows.append(
      overlays.Row(
        label=place,
        hu=nodules.image[index],
        truth=nodules.mask[index] > 0,
        coarse=masks['coarse'][index],
        fine=masks['fine'][index],
        cam=cam[index],
        texts=(
          str(record['nodule_id']),
          f'{record["diameter_mm"]:.1f} mm, {metrics.LABELS[record["label"]]}',
          f'Dice {record["coarse_dice"]:.3f}',
          f'Dice {record["fine_dice"]:.3f}',
          f'malignancy {record["malignancy_probability"]:.3f}',
        ),
      )
    )
  return overlays.draw(
    rows, title='examples by Dice of Fine Seg-net', simulated=simulated
  )
