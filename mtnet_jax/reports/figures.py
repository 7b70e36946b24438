"""Draws the report's figures of training, Dice and groups of nodules.

It also holds what all figures share. They are `matplotlib.figure.Figure`s
made without pyplot, so there is no global state and no display is needed. If
the CT is simulated, every title starts with "SIMULATED CT".
"""

from collections.abc import Mapping
from collections.abc import Sequence
import io
import pathlib
import threading
from typing import TYPE_CHECKING
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from mtnet_jax.reports import tables
from mtnet_jax.reports import training_table
from mtnet_jax.storage import files

if TYPE_CHECKING:
  from mtnet_jax.evaluation import subgroups

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN = '#0072B2', '#D55E00', '#009E73'
_DPI = 160
# Several runs of a sweep may finish together; Matplotlib is not thread-safe.
_DRAWING = threading.Lock()
# Width and height in inches of a figure that shares a row with another one.
SIZE = (4.4, 4.0)
_MARKERS = {'coarse': (ORANGE, 'x'), 'fine': (BLUE, 'o')}


def save(figure: mpl_figure.Figure, path: pathlib.Path) -> None:
  """Writes a PNG atomically.

  Raises:
    errors.InputError: the file cannot be written.
  """
  png = io.BytesIO()
  with _DRAWING:
    figure.savefig(png, format='png', dpi=_DPI)
  files.write_bytes(path, png.getvalue())


def with_axes(
  title: str,
  *,
  simulated: bool,
  size: tuple[float, float] = SIZE,
  rows: int = 1,
  columns: int = 1,
  **subplots: Any,
) -> tuple[mpl_figure.Figure, Sequence[mpl_axes.Axes]]:
  """Returns a titled figure and its axes, row by row.

  Args:
    title: of the figure.
    simulated: whether the CT is simulated.
    size: width and height in inches.
    rows: number of rows of axes.
    columns: number of columns of axes.
    **subplots: passed to `Figure.subplots`.
  """
  figure = mpl_figure.Figure(size, layout='constrained')
  # A title may contain a name from the data, where $ does not start a formula.
  figure.suptitle(tables.heading(title, simulated), fontsize=10).set_parse_math(
    False
  )
  axes = figure.subplots(rows, columns, squeeze=False, **subplots).ravel()
  for ax in axes:
    ax.grid(color='0.9')
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
  return figure, axes


def values_and_bars(
  estimates: Sequence[Mapping[str, Any]],
) -> tuple[np.ndarray, np.ndarray]:
  """Returns values and error bars for Matplotlib.

  Args:
    estimates: (N,) of {'value', 'ci95'}.

  Returns:
    (N,) values, and (2, N) lengths of their error bars, 0 without an interval.
  """
  values = np.asarray([x['value'] for x in estimates], np.float64)
  ends = [x['ci95'] or (x['value'],) * 2 for x in estimates]
  low, high = np.asarray(ends, np.float64).T
  return values, np.maximum([values - low, high - values], 0)


def training_curves(
  history: Sequence[Mapping[str, Any]],
  *,
  title: str,
  metric: str,
  metric_name: str,
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws the loss and the selection metric of one stage by epoch.

  The epoch whose variables were kept is marked.

  Args:
    history: a row per epoch, from `trainer.Trainer.run`.
    title: display name of the stage.
    metric: key in `history` of the metric that selects the best epoch.
    metric_name: display name of the metric.
    simulated: whether the CT is simulated.
  """
  figure, (above, below) = with_axes(
    f'training of {title}', simulated=simulated, rows=2, sharex=True
  )
  epochs = [row['epoch'] for row in history]
  style: dict[str, Any] = {'marker': '.', 'linewidth': 1.4, 'color': BLUE}
  above.plot(epochs, [row['loss'] for row in history], **style)
  below.plot(epochs, [row[metric] for row in history], **style)
  kept = training_table.kept_row(history)
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


def dice_by_diameter(
  records: Sequence[Mapping[str, Any]],
  networks: Sequence[str],
  *,
  simulated: bool,
  names: Mapping[str, str] | None = None,
) -> mpl_figure.Figure:
  """Draws the Dice index of every test nodule against its diameter.

  Args:
    records: from `records.make_records`.
    networks: from `records.masks_of`.
    simulated: whether the CT is simulated.
    names: from `tables.network_names`; MT-Net's by default.
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


def by_group(
  groups: 'Sequence[subgroups.Group]',
  series: Sequence[tuple[str, str]],
  *,
  xlabel: str,
  title: str,
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws estimates with intervals, a line per group.

  Args:
    groups: from `subgroups.make`.
    series: (key in `Group.estimates`, display name) of each estimate.
    xlabel: name of what is estimated.
    title: of the figure.
    simulated: whether the CT is simulated.
  """
  height = 1.1 + 0.3 * (len(groups) + len({group.family for group in groups}))
  figure, (ax,) = with_axes(title, simulated=simulated, size=(SIZE[0], height))
  styles = ((BLUE, 'o'), (ORANGE, 's'), (GREEN, 'D'))
  positions, labels, family, position = [], [], None, 0
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
      estimate = group.estimates.get(key)
      if estimate is None or estimate['value'] is None:
        continue
      value, bars = values_and_bars([estimate])
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
    labels.append(f'{group.name} (n={group.nodules})')
    position += 1
  ax.set_yticks(positions, labels, fontsize=7.5)
  ax.set(xlabel=xlabel, ylim=(position - 0.4, -0.6))
  # Every group adds the same labels again.
  handles, names = ax.get_legend_handles_labels()
  unique = dict(zip(names, handles, strict=True))
  ax.legend(unique.values(), unique.keys(), fontsize=7.5, loc='best')
  return figure
