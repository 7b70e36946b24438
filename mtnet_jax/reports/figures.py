"""Figures of the report: what they share, training, Dice, groups of nodules.

Figures are `matplotlib.figure.Figure`s; there is no pyplot and hence no global
state and no display. Where the CT is simulated, the title of every figure says
so.
"""

import io
import threading

from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from mtnet_jax.reports import run_tables
from mtnet_jax.reports import tables
from mtnet_jax.storage import files

# Okabe & Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN = '#0072B2', '#D55E00', '#009E73'
_DPI = 160
# Several runs of a sweep may end at once, and Matplotlib is not thread-safe.
_DRAWING = threading.Lock()
SIZE = (4.4, 4.0)  # inches, of a figure that stands beside another
_MARKERS = {'coarse': (ORANGE, 'x'), 'fine': (BLUE, 'o')}


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
  # A title may hold a name from data: a $ in it is no formula.
  figure.suptitle(tables.heading(title, simulated), fontsize=10).set_parse_math(
    False
  )
  axes = figure.subplots(rows, columns, squeeze=False, **subplots).ravel()
  for ax in axes:
    ax.grid(color='0.9')
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
  return figure, axes


def values_and_bars(estimates):
  """(N,) values, and (2, N) lengths of their error bars; 0 for no interval."""
  values = np.asarray([x['value'] for x in estimates], np.float64)
  ends = [x['ci95'] or (x['value'],) * 2 for x in estimates]
  low, high = np.asarray(ends, np.float64).T
  return values, np.maximum([values - low, high - values], 0)


def training_curves(history, *, title, metric, metric_name, simulated):
  """Loss and selection metric of one stage, the kept epoch marked.

  Args:
    history: a row per epoch, of `trainer.Trainer.run`.
    title: what the stage is called.
    metric: the key by which the best epoch is chosen.
    metric_name: what that is called.
    simulated: whether the CT is.
  """
  figure, (above, below) = with_axes(
    f'training of {title}', simulated=simulated, rows=2, sharex=True
  )
  epochs = [row['epoch'] for row in history]
  style = {'marker': '.', 'linewidth': 1.4, 'color': BLUE}
  above.plot(epochs, [row['loss'] for row in history], **style)
  below.plot(epochs, [row[metric] for row in history], **style)
  kept = run_tables.kept_row(history)
  for ax in (above, below):
    ax.axvline(kept['epoch'], color=ORANGE, linestyle=':', linewidth=1.2)
  below.plot(
    kept['epoch'],
    kept[metric],
    'o',
    color=ORANGE,
    label=f'kept: epoch {kept["epoch"]}, {kept[metric]:.3f}',
  )
  below.legend(fontsize=8)
  above.set_ylabel('training loss', fontsize=9)
  below.set_ylabel(f'validation {metric_name}', fontsize=9)
  below.set_xlabel('epoch')
  below.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  return figure


def dice_by_diameter(records, networks, *, simulated, names=None):
  """Dice of every test nodule against its diameter.

  Args:
    records: of `records.make_records`.
    networks: of `records.masks_of`.
    simulated: whether the CT is.
    names: of `tables.network_names`.
  """
  names = names or tables.network_names()
  figure, (ax,) = with_axes('Dice by diameter', simulated=simulated)
  diameters = [record['diameter_mm'] for record in records]
  for network in networks:
    color, marker = _MARKERS[network]
    ax.scatter(
      diameters,
      [record[f'{network}_dice'] for record in records],
      s=14,
      marker=marker,
      color=color,
      alpha=0.6,
      linewidths=1,
      label=names[network],
    )
  ax.set(
    xlabel="mean of the readers' diameters, mm",
    ylabel='Dice',
    ylim=(-0.03, 1.03),
  )
  ax.legend(fontsize=8)
  return figure


def by_group(groups, series, *, xlabel, title, simulated):
  """Estimates with intervals, a line per group.

  Args:
    groups: of `subgroups.make`.
    series: list of (key of the estimates, name).
    xlabel: what is estimated.
    title: of the figure.
    simulated: whether the CT is.
  """
  height = 1.1 + 0.3 * (len(groups) + len({group.family for group in groups}))
  figure, (ax,) = with_axes(title, simulated=simulated, size=(SIZE[0], height))
  styles = ((BLUE, 'o'), (ORANGE, 's'), (GREEN, 'D'))
  positions, texts, family, position = [], [], None, 0
  for group in groups:
    if group.family != family:
      family = group.family
      ax.text(
        0.0,
        position,
        family,
        transform=ax.get_yaxis_transform(),
        fontsize=7.5,
        fontweight='bold',
        va='center',
      )
      position += 1
    for shift, ((key, name), (color, marker)) in enumerate(
      zip(series, styles, strict=False)
    ):
      found = group.estimates.get(key)
      if found is None or found['value'] is None:
        continue
      value, bars = values_and_bars([found])
      ax.errorbar(
        value,
        position + 0.22 * (shift - (len(series) - 1) / 2),
        xerr=bars,
        fmt=marker,
        color=color,
        markersize=4,
        linewidth=1,
        capsize=2,
        label=name,
      )
    positions.append(position)
    texts.append(f'{group.name} (n={group.nodules})')
    position += 1
  ax.set_yticks(positions, texts, fontsize=7.5)
  ax.set(xlabel=xlabel, ylim=(position - 0.4, -0.6))
  handles, labels = ax.get_legend_handles_labels()
  unique = dict(zip(labels, handles, strict=True))
  ax.legend(unique.values(), unique.keys(), fontsize=7.5, loc='best')
  return figure
