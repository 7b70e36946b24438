"""Figures of a sweep: estimates with their intervals, one per point.

What holds for all figures is in `figures`.
"""

import numpy as np

from mtnet_jax.reports import figures

_COLORS = (figures.BLUE, figures.ORANGE, figures.GREEN, '#CC79A7')
_MARKERS = 'osD^'


def _values_and_errors(estimates):
  """Per cent: (N,) values and (2, N) lengths of the bars; 0 for none."""
  values = np.asarray([x['value'] for x in estimates], np.float64)
  ends = np.asarray(
    [x['ci95'] or (x['value'],) * 2 for x in estimates], np.float64
  ).T
  return 100 * values, 100 * np.abs(ends - values)


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
  values, errors = _values_and_errors(estimates)
  places = -np.arange(len(titles))
  ax.axvline(values[0], color='0.7', linestyle=':', linewidth=1)
  ax.errorbar(values, places, xerr=errors, fmt='o', color=_COLORS[0], capsize=3)
  ax.set_yticks(places, titles, fontsize=8)
  ax.set_ylim(places[-1] - 0.6, 0.6)
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
    values, errors = _values_and_errors([estimate for _, estimate in points])
    ax.errorbar(
      x,
      values,
      yerr=errors,
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
