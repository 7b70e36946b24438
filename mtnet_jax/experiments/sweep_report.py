"""Writes the report of a sweep: one page, its tables as CSV, and its figures.

Like the report of a run, it needs no network connection, and an incomplete one
is never visible.
"""

from collections.abc import Sequence
import pathlib

import ml_collections

import mtnet_jax
from mtnet_jax.evaluation import finished_run
from mtnet_jax.experiments import sweep_figures
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_statistics
from mtnet_jax.experiments import sweep_text
from mtnet_jax.reports import page as page_lib
from mtnet_jax.reports import paper
from mtnet_jax.reports import tables
from mtnet_jax.storage import files
from mtnet_jax.system import errors


def write(
  directory: pathlib.Path,
  config: ml_collections.ConfigDict,
  plan: Sequence[sweep_plan.Point],
) -> str:
  """Writes DIRECTORY/report from the finished runs of a sweep.

  Args:
    directory: of the sweep.
    config: of the sweep.
    plan: from `sweep_plan.points`; all runs are finished.

  Returns:
    The title and the findings of the sweep, as lines of text.

  Raises:
    errors.InputError: a run is incomplete, was made by another version, or
      mixes files of several runs.
  """
  runs = {
    point.folder: finished_run.read(directory / point.folder) for point in plan
  }
  records: dict[str, list] = {}
  for point in plan:
    records.setdefault(point.name, []).extend(runs[point.folder].records)
  test_folds = config.get('test_folds', ())
  for rows in records.values() if test_folds else ():
    # Pairing needs the same order, regardless of which fold tested a nodule.
    rows.sort(key=lambda row: (row['nodule_id'], row['slice_index']))
  simulated = any(run.results['simulated'] for run in runs.values())
  _check_alike(runs)
  outputs, seed = config.get('outputs', ()), config.base.seed
  points = sweep_plan.once_each(plan)
  if config.kind == 'folds':
    results = sweep_statistics.fold_results(
      plan, records, outputs=outputs, seed=seed
    )
  else:
    results = sweep_statistics.compare(
      points,
      records,
      reference=config.reference,
      outputs=outputs,
      same_coarse_net=_same_coarse_net(plan, config.reference),
      seed=seed,
    )
  sentences = sweep_text.sentences(config, results, simulated)
  with files.replaced_folder(pathlib.Path(directory, 'report')) as folder:
    page = page_lib.Page(folder, simulated)
    for table in _make_tables(config, results):
      page.add_table(table)
    for name, figure, alt in _draw(config, points, results, simulated):
      page.add_picture(name, figure, alt)
    files.write_csv(folder / 'results.csv', _csv_rows(results, simulated))
    page.write(
      'sweep.html',
      config=config,
      test_folds=test_folds,
      facts=_facts(config, runs),
      sentences=sentences,
      points=_point_rows(plan, runs, config.reference),
      unpaired=any(r.differences and not r.paired for r in results),
    )
  return '\n'.join([config.title, *(f'  {line}' for line in sentences)])


def _same_coarse_net(plan, reference):
  for group in sweep_plan.groups(plan):
    names = {point.name for point in group}
    if reference in names:
      return names
  return set()


def _check_alike(runs):
  """Checks that the runs have the same kind of CT and version of JAX."""
  for what, value_fn in (
    ('simulated CT', lambda run: run.results['simulated']),
    ('the version of jax', lambda run: run.results['versions']['jax']),
  ):
    values = {name: value_fn(run) for name, run in runs.items()}
    if len(set(values.values())) > 1:
      text = ', '.join(f'{name}: {value}' for name, value in values.items())
      raise errors.InputError(
        f'the runs of this sweep cannot be compared, because they differ in'
        f' {what} ({text}). Delete the folders of the runs that do not belong'
        ' here, and give the command again.'
      )


def _make_tables(config, results):
  """Yields a table per task, with the paper's rows among ours."""
  for name, columns in (
    ('segmentation', tables.SEGMENTATION),
    ('classification', tables.CLASSIFICATION),
  ):
    # The second metric tells the tasks apart: both of them have an accuracy.
    of_task = [r for r in results if columns[1].key in r.estimates]
    if not of_task:
      continue
    if config.kind in ('grid', 'curve'):
      # The difference is a column: as a row, it would double the many points.
      rows = [_grid_row(result, columns) for result in of_task]
      columns = [
        *columns,
        tables.Column('difference', 'JA minus the reference', 'plain'),
      ]
    else:
      rows = [
        row
        for result in of_task
        for row in _rows(
          config, result, sweep_text.title_of(result, of_task), columns
        )
      ]
    yield tables.Table(name, config.title, columns, rows)


def _grid_row(result, columns):
  change, mark = '-', ' (reference)'
  if result.differences:
    metric = sweep_statistics.MAIN[result.output]
    estimate, mark = result.differences[metric], ''
    change = tables.cell_text(estimate, kind='difference')
  cells = [*tables.cells(result.estimates, columns), change]
  return tables.Row(result.title + mark, cells, 'nodules')


def _rows(config, result, title, columns):
  yield tables.row(title, result.estimates, columns)
  published = paper.SWEEPS.get(config.name, {}).get(
    (result.point, result.output)
  )
  if published:
    yield tables.row('paper, real CT', published, columns, 'paper')
  if result.differences:
    title = f'minus {sweep_text.reference_of(config, result)}'
    yield tables.row(title, result.differences, columns, 'difference')


def _csv_rows(results, simulated):
  rows = []
  for result in results:
    for metric, estimate in result.estimates.items():
      row = {
        'point': result.point,
        'output': result.output,
        'metric': metric,
        'simulated': simulated,
        'nodules': result.nodules,
        'patients': result.patients,
        **_csv_cells('', estimate),
      }
      if result.differences:
        row.update(_csv_cells('difference_', result.differences[metric]))
        row['paired'] = result.paired
        row['verdict'] = sweep_statistics.verdict(result.differences[metric])
      rows.append(row)
  return rows


def _csv_cells(prefix, estimate):
  low, high = estimate['ci95'] or (None, None)
  return {
    f'{prefix}value': estimate['value'],
    f'{prefix}low': low,
    f'{prefix}high': high,
  }


def _draw(config, plan, results, simulated):
  """Yields (name, figure, alternative text) of each main metric."""
  overrides = {point.name: point.overrides for point in plan}
  for metric in dict.fromkeys(
    sweep_statistics.MAIN[result.output] for result in results
  ):
    found = [
      r
      for r in results
      if sweep_statistics.MAIN[r.output] == metric
      and r.estimates[metric]['value'] is not None
    ]
    name = sweep_text.METRIC_NAMES[metric]
    common = {'metric': name, 'title': config.title, 'simulated': simulated}
    if not found:
      continue
    if config.kind in ('grid', 'curve'):
      figure = sweep_figures.curves(
        _series(found, overrides, metric),
        x_name=_axis(overrides[found[0].point], 0),
        **common,
      )
    else:
      figure = sweep_figures.rows(
        [sweep_text.title_of(result, results) for result in found],
        [result.estimates[metric] for result in found],
        **common,
      )
    yield metric, figure, f'{name} of every point with its interval'


def _axis(overrides, index):
  key, _ = sweep_plan.leaves(overrides)[index]
  return sweep_plan.AXES.get(key, key)


def _series(results, overrides, metric):
  """Returns name of a line -> (x, estimate) of its points.

  The first override of a point is its x; the second one, if any, its line.
  """
  series = {}
  for result in results:
    (_, x), *rest = sweep_plan.leaves(overrides[result.point])
    name = f'{_axis(overrides[result.point], 1)} {rest[0][1]}' if rest else ''
    series.setdefault(name, []).append((x, result.estimates[metric]))
  return series


def _facts(config, runs):
  """Returns (name, text) of each fact in the header."""
  datasets = dict.fromkeys(run.results['dataset'] for run in runs.values())
  first = next(iter(runs.values()))
  ct, hardware = page_lib.ct_and_hardware(first.results)
  return [
    ('Sweep', f'{config.name}, {len(runs)} runs of {config.base.variant}'),
    ('Dataset', ', '.join(datasets)),
    ('CT', ct),
    ('Seed', config.base.seed),
    *([] if config.kind == 'folds' else [('Reference', config.reference)]),
    ('Hardware', f'{hardware} per run'),
    (
      'Versions',
      f'mtnet_jax {mtnet_jax.__version__}, jax'
      f' {first.results["versions"]["jax"]}',
    ),
  ]


def _point_rows(plan, runs, reference):
  return [
    {
      'name': point.folder,
      'reference': point.name == reference,
      'overrides': sweep_plan.describe(point.overrides) or 'none',
      'test': runs[point.folder].results['test'],
    }
    for point in plan
  ]
