"""Draws the figures of a sweep: an estimate with its interval per point.

`reports.figures` has what all figures share.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from matplotlib import figure as mpl_figure
import numpy as np

from mtnet_jax.reports import figures

_COLORS = (figures.BLUE, figures.ORANGE, figures.GREEN, '#CC79A7')
_MARKERS = 'osD^'


def rows(
  titles: Sequence[str],
  estimates: Sequence[Mapping[str, Any]],
  *,
  metric: str,
  title: str,
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws a row per point: a dot, its interval, and a line at the first value.

  Args:
    titles: (N,) of the rows.
    estimates: (N,) of {'value', 'ci95'}.
    metric: display name of the metric.
    title: of the figure.
    simulated: whether the CT is simulated.
  """
  figure, (ax,) = figures.with_axes(
    title, simulated=simulated, size=(6.4, 1.2 + 0.42 * len(titles))
  )
  values, bars = figures.values_and_bars(estimates)
  positions = -np.arange(len(titles))
  ax.axvline(100 * values[0], color='0.7', linestyle=':', linewidth=1)
  ax.errorbar(
    100 * values,
    positions,
    xerr=100 * bars,
    fmt='o',
    color=_COLORS[0],
    capsize=3,
  )
  ax.set_yticks(positions, titles, fontsize=8, parse_math=False)
  ax.set_ylim(positions[-1] - 0.6, 0.6)
  ax.set_xlabel(f'{metric}, per cent (95 % interval over patients)', fontsize=9)
  return figure


def curves(
  series: Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]],
  *,
  x_name: str,
  metric: str,
  title: str,
  simulated: bool,
) -> mpl_figure.Figure:
  """Draws estimates with intervals over a hyperparameter, a line per series.

  Args:
    series: name -> (x, {'value', 'ci95'}) of each point.
    x_name: display name of the hyperparameter.
    metric: display name of the metric.
    title: of the figure.
    simulated: whether the CT is simulated.
  """
  figure, (ax,) = figures.with_axes(title, simulated=simulated, size=(6.4, 4.4))
  x_values = sorted({x for points in series.values() for x, _ in points})
  # Shift the series, so that intervals at the same x do not overlap.
  gap = min(np.diff(x_values), default=1)
  for index, (name, points) in enumerate(series.items()):
    shift = (index - (len(series) - 1) / 2) * 0.12 * gap
    x = np.asarray([x for x, _ in points]) + shift
    values, bars = figures.values_and_bars([estimate for _, estimate in points])
    ax.errorbar(
      x,
      100 * values,
      yerr=100 * bars,
      color=_COLORS[index % len(_COLORS)],
      marker=_MARKERS[index % len(_MARKERS)],
      markersize=4,
      linewidth=1.4,
      elinewidth=0.7,
      capsize=2,
      label=name,
    )
  ax.set_xticks(x_values)
  ax.set_xlabel(x_name)
  ax.set_ylabel(f'{metric}, per cent (95 % interval over patients)', fontsize=9)
  if len(series) > 1:
    # Outside the axes, where it does not hide any interval.
    ax.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
  return figure
