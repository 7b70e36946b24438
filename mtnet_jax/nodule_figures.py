"""Figures over the nodules of a test set: by diameter, and by group."""

import numpy as np

from mtnet_jax import figures
from mtnet_jax import tables

_MARKERS = {'coarse': (figures.ORANGE, 'x'), 'fine': (figures.BLUE, 'o')}


def dice_by_diameter(records, networks, *, simulated, names=None):
  """Dice of every test nodule against its diameter.

  Args:
    records: of `evaluate.make_records`.
    networks: of `scores.masks_of`.
    simulated: whether the CT is.
    names: of `tables.network_names`.
  """
  names = names or tables.network_names()
  figure, (ax,) = figures.with_axes('Dice by diameter', simulated=simulated)
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
  figure, (ax,) = figures.with_axes(
    title, simulated=simulated, size=(figures.SIZE[0], height)
  )
  styles = (
    (figures.BLUE, 'o'),
    (figures.ORANGE, 's'),
    (figures.GREEN, 'D'),
  )
  places, texts, family, place = [], [], None, 0
  for group in groups:
    if group.family != family:
      family = group.family
      ax.text(
        0.0,
        place,
        family,
        transform=ax.get_yaxis_transform(),
        fontsize=7.5,
        fontweight='bold',
        va='center',
      )
      place += 1
    for shift, ((key, name), (color, marker)) in enumerate(
      zip(series, styles, strict=False)
    ):
      found = group.estimates.get(key)
      if found is None or found['value'] is None:
        continue
      value = found['value']
      low, high = found['ci95'] or (value, value)
      ax.errorbar(
        value,
        place + 0.22 * (shift - (len(series) - 1) / 2),
        xerr=np.reshape([max(value - low, 0), max(high - value, 0)], (2, 1)),
        fmt=marker,
        color=color,
        markersize=4,
        linewidth=1,
        capsize=2,
        label=name,
      )
    places.append(place)
    texts.append(f'{group.name} (n={group.nodules})')
    place += 1
  ax.set_yticks(places, texts, fontsize=7.5)
  ax.set(xlabel=xlabel, ylim=(place - 0.4, -0.6))
  handles, labels = ax.get_legend_handles_labels()
  unique = dict(zip(labels, handles, strict=True))
  ax.legend(unique.values(), unique.keys(), fontsize=7.5, loc='best')
  return figure
