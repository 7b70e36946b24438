"""Figures of a sweep: estimates with their intervals, one per point.

What holds for all figures is in `figures`.
"""

import numpy as np

from mtnet_jax.reports import figures

_COLORS = (figures.BLUE, figures.ORANGE, figures.GREEN, '#CC79A7')
_MARKERS = 'osD^'


def rows(titles, estimates, *, metric, title, simulated):
  """A row per point: a dot and its interval; the first one's value as a line.

  Args:
    titles: (N,) of the rows.
    estimates: (N,) of {'value', 'ci95'}.
    metric: what is shown.
    title: of the figure.
    simulated: whether the CT is.
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


def curves(series, *, x_name, metric, title, simulated):
  """A line per series over a number, with intervals.

  Args:
    series: name -> list of (x, {'value', 'ci95'}).
    x_name, metric: what the axes show.
    title: of the figure.
    simulated: whether the CT is.
  """
  figure, (ax,) = figures.with_axes(title, simulated=simulated, size=(6.4, 4.4))
  steps = sorted({x for points in series.values() for x, _ in points})
  # Beside each other, or intervals of equal x would hide each other.
  gap = min(np.diff(steps), default=1)
  for index, (name, points) in enumerate(series.items()):
    shift = (index - (len(series) - 1) / 2) * 0.12 * gap
    x = np.asarray([x for x, _ in points]) + shift
    values, bars = figures.values_and_bars([found for _, found in points])
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
  ax.set_xticks(steps)
  ax.set_xlabel(x_name)
  ax.set_ylabel(f'{metric}, per cent (95 % interval over patients)', fontsize=9)
  if len(series) > 1:
    # Beside the axes: among so many intervals there is no place for it.
    ax.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
  return figure
