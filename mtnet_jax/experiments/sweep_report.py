"""The report of a sweep: one page, a table as CSV, and a figure.

As the report of a run it needs no network, and is moved into place when
complete.
"""

import pathlib

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


def write(directory, config, plan):
  """Writes DIRECTORY/report from the finished runs of a sweep.

  Args:
    directory: of the sweep.
    config: the sweep's.
    plan: of `sweep_plan.points`, every one of them finished.

  Returns:
    What the report says, as a few lines of text.

  Raises:
    errors.InputError: a run is incomplete, of another version, or its files
      are not of one run.
  """
  runs = {
    point.folder: finished_run.read(directory / point.folder) for point in plan
  }
  records = {}
  for point in plan:
    records.setdefault(point.name, []).extend(runs[point.folder].records)
  test_folds = config.get('test_folds', ())
  for rows in records.values() if test_folds else ():
    # In one order, whichever fold has tested them, so that they are paired.
    rows.sort(key=lambda row: (row['nodule_id'], row['slice_index']))
  simulated = any(run.results['simulated'] for run in runs.values())
  _check_alike(runs)
  shown, seed = config.get('outputs', ()), config.base.seed
  points = sweep_plan.once_each(plan)
  if config.kind == 'folds':
    results = sweep_statistics.of_folds(plan, records, shown=shown, seed=seed)
  else:
    results = sweep_statistics.compare(
      points,
      records,
      reference=config.reference,
      shown=shown,
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
  """Runs that were made of different things cannot be compared."""
  for what, value_of in (
    ('are simulated or not', lambda run: run.results['simulated']),
    ('versions of jax', lambda run: run.results['versions']['jax']),
  ):
    found = {name: value_of(run) for name, run in runs.items()}
    if len(set(found.values())) > 1:
      values = ', '.join(f'{name}: {value}' for name, value in found.items())
      raise errors.InputError(
        f'the runs of this sweep are mixed up, they differ in {what}'
        f' ({values}): delete the folders of those that do not belong here.'
      )


def _make_tables(config, results):
  """A table per task, the paper's rows among ours."""
  for name, columns in (
    ('segmentation', tables.SEGMENTATION),
    ('classification', tables.CLASSIFICATION),
  ):
    # By their second metric: both tasks have an accuracy.
    found = [r for r in results if columns[1].key in r.estimates]
    if not found:
      continue
    if config.kind in ('grid', 'curve'):
      # A row each, or twenty points would be forty rows.
      rows = [_row_of_grid(result, columns) for result in found]
      columns = [
        *columns,
        tables.Column('difference', 'JA minus the reference', 'plain'),
      ]
    else:
      rows = [
        row
        for result in found
        for row in _rows(
          config, result, sweep_text.title_of(result, found), columns
        )
      ]
    yield tables.Table(name, config.title, columns, rows)


def _row_of_grid(result, columns):
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
        **_numbers('', estimate),
      }
      if result.differences:
        row.update(_numbers('difference_', result.differences[metric]))
        row['paired'] = result.paired
        row['verdict'] = sweep_statistics.verdict(result.differences[metric])
      rows.append(row)
  return rows


def _numbers(prefix, estimate):
  low, high = estimate['ci95'] or (None, None)
  return {
    f'{prefix}value': estimate['value'],
    f'{prefix}low': low,
    f'{prefix}high': high,
  }


def _draw(config, plan, results, simulated):
  """(file, figure, alternative text) of the figures of a kind."""
  overrides = {point.name: point.overrides for point in plan}
  for output_metric in dict.fromkeys(
    sweep_statistics.MAIN[result.output] for result in results
  ):
    found = [
      r
      for r in results
      if sweep_statistics.MAIN[r.output] == output_metric
      and r.estimates[output_metric]['value'] is not None
    ]
    name = sweep_text.METRIC_NAMES[output_metric]
    common = {'metric': name, 'title': config.title, 'simulated': simulated}
    if not found:
      continue
    if config.kind in ('grid', 'curve'):
      figure = sweep_figures.curves(
        _series(found, overrides, output_metric),
        x_name=_axis(overrides[found[0].point], 0),
        **common,
      )
    else:
      figure = sweep_figures.rows(
        [sweep_text.title_of(result, results) for result in found],
        [result.estimates[output_metric] for result in found],
        **common,
      )
    yield output_metric, figure, f'{name} of every point with its interval'


def _axis(overrides, index):
  key, _ = sweep_plan.leaves(overrides)[index]
  return sweep_plan.AXES.get(key, key)


def _series(results, overrides, metric):
  """Name -> (x, estimate): x is the first override, a line each second."""
  series = {}
  for result in results:
    (_, x), *rest = sweep_plan.leaves(overrides[result.point])
    name = f'{_axis(overrides[result.point], 1)} {rest[0][1]}' if rest else ''
    series.setdefault(name, []).append((x, result.estimates[metric]))
  return series


def _facts(config, runs):
  """(name, text) of what was run, on what, with what."""
  datasets = dict.fromkeys(run.results['dataset'] for run in runs.values())
  first = next(iter(runs.values()))
  ct, hardware = page_lib.ct_and_hardware(first.results)
  return [
    ('Sweep', f'{config.name}, {len(runs)} runs of {config.base.variant}'),
    ('Dataset', ', '.join(datasets)),
    ('CT', ct),
    ('Seed', config.base.seed),
    *([] if config.kind == 'folds' else [('Reference', config.reference)]),
    ('Hardware', f'{hardware} a run'),
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
      'overrides': sweep_plan.describe(point.overrides) or 'as the base',
      'test': runs[point.folder].results['test'],
    }
    for point in plan
  ]
