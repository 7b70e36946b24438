"""Tests that the page of results has only the times of undisturbed runs."""

from benchmarks.results import page
from benchmarks.results import sources
from mtnet_jax.experiments import sweep_plan


def test_runs_on_busy_cores_have_no_cost():
  titles = {
    p.name: p.title for p in sweep_plan.once_each(sources.TABLES.plan())
  }
  alone = [{'seconds': {'coarse': x, 'class': 2 * x}} for x in (1, 3, 2)]
  shared = [{**alone[0], 'busy': True}, {**alone[1], 'busy': False}]
  made = {'mtnet': alone, 'serial': shared}
  # The medians of the three folds are 2 and 4.
  assert page._costs(made) == [
    (titles['mtnet'], '6', 'coarse 2, class 4'),
  ]
  assert page._is_busy(shared) and not page._is_busy(alone)
