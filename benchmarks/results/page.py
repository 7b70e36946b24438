"""Writes docs/results.md from the numbers in docs/results."""

import pathlib
import statistics

import jinja2

from benchmarks.results import analysis
from benchmarks.results import claims
from benchmarks.results import figures
from benchmarks.results import gather
from benchmarks.results import sources
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_text
from mtnet_jax.reports import figures as report_figures
from mtnet_jax.reports import tables
from mtnet_jax.system import errors

_TABLE1 = (
  'mtnet',
  'shared',
  'feedback',
  'serial',
  'single',
  gather.PEERS,
  gather.DIAMETER,
)
_MASKS = ('', 'DI', 'JA', 'ACC', 'Recall', 'SPE')
_LABELS = ('', 'ACC', 'AUC', 'SEN', 'SPE')


def table(head, rows):
  """Returns a Markdown table of rows of text."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def write(docs):
  """Writes DOCS/results.md and its figures from DOCS/results.

  Args:
    docs: the folder DOCS.

  Returns:
    The text of the page.
  """
  docs = pathlib.Path(docs)
  folder = docs / 'results'
  records, made = gather.read(folder)
  text = render(records, made, folder)
  (docs / 'results.md').write_text(text, encoding='utf-8')
  return text


def render(records, made, folder=None):
  """Returns the text of the page, and draws its figures.

  Args:
    records: records from `gather.read`.
    made: facts of the runs from `gather.read`.
    folder: folder for the figures, which may already hold that of `examples`;
      by default no figures are drawn.

  Raises:
    errors.InputError: there are no numbers of MT-Net itself.
  """
  if analysis.REFERENCE not in records.get(sources.TABLES.name, {}):
    raise errors.InputError(
      'the page compares everything with MT-Net, which is not finished: run'
      f' `{sources.TABLES.command}` first.'
    )
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.globals.update(
    table=table,
    masks=_MASKS,
    labels=_LABELS,
    text=tables.cell_text,
    difference=lambda x: tables.cell_text(x, kind='difference'),
    median=statistics.median,
  )
  simulated = any(
    row['simulated']
    for points in records.values()
    for rows in points.values()
    for row in rows
  )
  context = {
    'simulated': simulated,
    'has_examples': folder is not None and (folder / 'examples.png').exists(),
    'sources': sources,
    **_made(made),
    **_of_tables(
      records['tables'], made[sources.TABLES.name], folder, simulated
    ),
    'rank': {},
    'claims': [],
  }
  results = context.pop('results')
  tested_claims = claims.of_tables(results)
  for sweep in (sources.FIGURE7, sources.FIGURE8, sources.IMAGE_SIZE):
    if _is_whole(sweep, records):
      context['rank'][sweep.name] = _of_sweep(
        sweep, records[sweep.name], folder, simulated
      )
  context['losses'] = []
  if _is_whole(sources.RANK_LOSS, records):
    context['losses'], adds = analysis.rank_loss(
      records[sources.RANK_LOSS.name]
    )
    tested_claims.extend(claims.of_rank_loss(adds))
  context['claims'] = [claim.row() for claim in tested_claims]
  return environment.get_template('page.md').render(context)


def _is_whole(sweep, records):
  """Returns whether all points of a sweep were gathered."""
  found = records.get(sweep.name, {})
  return all(point.name in found for point in sweep.plan())


def _made(made):
  """Returns the hardware and the dates of all runs."""
  runs = [
    run
    for points in made.values()
    for of_folds in points.values()
    for run in of_folds
  ]
  dates = sorted({run['date'] for run in runs})
  return {
    'hardware': ' and '.join(sorted({run['hardware'] for run in runs})),
    'dates': ' to '.join(dict.fromkeys([dates[0], dates[-1]])),
  }


def _of_tables(records, made, folder, simulated):
  """Returns the page's values on Tables 1, 4 and 5, peers and groups."""
  results = analysis.compare(sources.TABLES, records)
  names = [name for name in _TABLE1 if name in {r.point for r in results}]
  if folder is not None:
    report_figures.save(
      figures.groups(records['mtnet'], seed=analysis.SEED, simulated=simulated),
      folder / 'groups.png',
    )
  readers, of_readers = analysis.readers(records)
  classifiers = ['mtnet', *({gather.PEERS} & records.keys())]
  return {
    'results': results,
    'best': {(r.output, r.point): r.estimates for r in results},
    'share_of_three': sum(row['num_readers'] >= 3 for row in records['mtnet']),
    'count': records_lib.count(records['mtnet']),
    'table1_masks': analysis.table_rows(results, 'fine', names),
    'table1_labels': analysis.table_rows(results, 'class', names),
    'table4': analysis.table_rows(results, 'class', ('mtnet', 'without_mask')),
    'table5': analysis.table_rows(results, 'fine', ('mtnet', 'without_mask')),
    'peers': analysis.peers(results, made),
    'groups': analysis.groups(records),
    'readers': readers,
    'of_readers': of_readers,
    'within_folds': {
      name: analysis.auc_within_folds(records[name]) for name in classifiers
    },
    'costs': _costs(made),
    'untimed': [
      point.title
      for point in sweep_plan.once_each(sources.TABLES.plan())
      if _is_busy(made.get(point.name, ()))
    ],
    'missing': [
      point.title
      for point in sweep_plan.once_each(sources.TABLES.plan())
      if point.name not in records
    ],
    'learning_rate': made[gather.PEERS][0]['learning_rate']
    if gather.PEERS in made
    else None,
    'run': made['mtnet'][0],
  }


def _costs(made):
  """Returns (strategy, seconds, seconds of its stages), medians over folds."""
  rows = []
  for point in sweep_plan.once_each(sources.TABLES.plan()):
    folds = made.get(point.name)
    if not folds or _is_busy(folds):
      continue
    stages = folds[0]['seconds']
    medians = {
      stage: statistics.median(fold['seconds'][stage] for fold in folds)
      for stage in stages
    }
    total = sum(medians.values())
    by_stage = ', '.join(f'{stage} {x:.0f}' for stage, x in medians.items())
    rows.append((point.title, f'{total:.0f}', by_stage))
  return rows


def _is_busy(of_folds):
  """Returns whether other work shared the cores, so that times are invalid."""
  return any(fold.get('busy') for fold in of_folds)


def _of_sweep(sweep, records, folder, simulated):
  results = analysis.compare(sweep, records)
  config = sweep.config()
  if folder is not None and config.kind in ('grid', 'curve'):
    report_figures.save(
      figures.rank_loss(sweep, results, simulated=simulated),
      folder / f'{sweep.name}.png',
    )
  return {
    'sentences': list(sweep_text.sentences(config, results, simulated)),
    'rows': [
      (
        result.title,
        *(tables.cell_text(result.estimates[m]) for m in ('dice', 'jaccard')),
        tables.cell_text(result.differences['jaccard'], kind='difference')
        if result.differences
        else 'reference',
      )
      for result in results
    ],
  }
