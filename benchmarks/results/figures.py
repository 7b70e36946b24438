"""Draws the page's figures from the records."""

import numpy as np

from mtnet_jax.evaluation import subgroups
from mtnet_jax.experiments import sweep_figures
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.reports import figures

_COLORS = {
  'reader_dice': ('0.55', 'readers with each other'),
  'coarse_dice': (figures.ORANGE, 'Coarse Seg-net'),
  'fine_dice': (figures.BLUE, 'Fine Seg-net'),
}


def rank_loss(sweep, results, *, simulated):
  """Draws Figure 7 or 8: the Jaccard index over the varied hyperparameters."""
  points = {p.name: p for p in sweep_plan.once_each(sweep.plan())}
  series, axes = {}, ()
  for result in results:
    varied = sweep_plan.leaves(points[result.point].overrides)
    axes = [sweep_plan.AXES[key] for key, _ in varied]
    (_, x), *rest = varied
    name = f'{axes[1]} {rest[0][1]}' if rest else ''
    series.setdefault(name, []).append((x, result.estimates['jaccard']))
  return sweep_figures.curves(
    series,
    x_name=axes[0],
    metric='Jaccard index',
    title=sweep.config().title,
    simulated=simulated,
  )


def groups(records, *, seed, simulated):
  """Draws Dice by size, texture and agreement, for networks and readers."""
  subgroups_found = subgroups.make(records, seed=seed)
  figure, (ax,) = figures.with_axes(
    'Dice index by kind of nodule, MT-Net over five folds',
    simulated=simulated,
    size=(6.8, 1.4 + 0.36 * len(subgroups_found)),
  )
  positions = -np.arange(len(subgroups_found))
  for index, (key, (color, name)) in enumerate(_COLORS.items()):
    values, bars = figures.values_and_bars(
      [group.estimates[key] for group in subgroups_found]
    )
    ax.errorbar(
      100 * values,
      positions + 0.2 * (1 - index),
      xerr=100 * bars,
      fmt='o',
      markersize=4,
      color=color,
      capsize=2,
      label=name,
    )
  ax.set_yticks(
    positions,
    [f'{g.family}: {g.name} ({g.nodules})' for g in subgroups_found],
    fontsize=8,
  )
  ax.set_xlabel('Dice index, per cent (95 % interval over patients)')
  # Below the axes, where it does not hide intervals.
  figure.legend(fontsize=8, loc='outside lower center', ncols=len(_COLORS))
  return figure
