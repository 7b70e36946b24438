"""Computes what the page shows from the records of all points."""

import statistics
from typing import NamedTuple

from benchmarks.results import claims
from benchmarks.results import gather
from benchmarks.results import sources
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.evaluation import subgroups
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_statistics
from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

SEED = 0
REFERENCE = 'mtnet'
# A mask with a lower Dice index has missed the nodule.
_MISSED = 0.5
_TITLES = {
  gather.PEERS: 'MONAI: U-Net and DenseNet-121',
  gather.DIAMETER: "the readers' diameter alone",
}


class Peers(NamedTuple):
  """Comparison of MT-Net with the peers.

  Attributes:
    dice: Dice index of Fine Seg-net minus that of the peer, an estimate.
    auc: AUC of Class-net minus that of the peer, an estimate.
    seconds: network name -> seconds of training in each fold.
    epochs: network name -> number of epochs in each fold.
    parameters: network name -> number of parameters.
    fastest: seconds of MT-Net's three stages in the fastest fold.
    slowest: the same in the slowest fold.
    compiling: seconds of compilation of MT-Net's three stages, the median over
      the folds.
    verdicts: a sentence on masks and one on malignancy.
  """

  dice: dict
  auc: dict
  seconds: dict
  epochs: dict
  parameters: dict
  fastest: float
  slowest: float
  compiling: float
  verdicts: tuple[str, str]


def compare(sweep, records, reference=None):
  """Runs `sweep_statistics.compare` on a sweep and its peers and baselines.

  Args:
    sweep: the `sources.Sweep`.
    records: point name -> records. Those that are no point of the sweep come
      last in the results.
    reference: name of the reference point; the sweep's own by default.

  Returns:
    A list of `sweep_statistics.Result`.
  """
  config = sweep.config()
  plan = [
    point
    for point in sweep_plan.once_each(sweep.plan())
    if point.name in records
  ]
  names = {point.name for point in plan}
  plan.extend(
    sweep_plan.Point(name, _TITLES[name], {}, None)
    for name in _TITLES
    if name in records and name not in names
  )
  # Differences are paired, which needs the same order of nodules everywhere.
  records = {
    name: sorted(rows, key=lambda row: row['nodule_id'])
    for name, rows in records.items()
  }
  return sweep_statistics.compare(
    plan,
    records,
    reference=reference or config.reference,
    outputs=config.outputs,
    same_coarse_net=('without_mask',),
    seed=SEED,
  )


def table_rows(results, output, points=None):
  """Returns the rows of a task's table: ours, the paper's, and differences.

  Args:
    results: results of `compare`.
    output: 'fine' (which includes coarse masks) or 'class'.
    points: names of points, in the order of the rows; all by default.

  Returns:
    A list of tuples of text; the first element is the title.
  """
  outputs = ('class',) if output == 'class' else ('coarse', 'fine')
  columns = tables.CLASSIFICATION if output == 'class' else tables.SEGMENTATION
  chosen = [r for r in results if r.output in outputs]
  if points:
    chosen = [r for r in chosen if r.point in points]
    chosen.sort(key=lambda r: (points.index(r.point), r.output))
  rows = []
  for result in chosen:
    names = tables.network_names()
    title = result.title
    if result.point == REFERENCE:
      title = names[result.output]
    shown = [tables.row(title, result.estimates, columns)]
    if result.differences:
      minus = f'- minus {names[result.against]}'
      shown.append(tables.row(minus, result.differences, columns, 'difference'))
    published = paper.SWEEPS['tables'].get((result.point, result.output))
    if published:
      shown.append(tables.row('- in the paper', published, columns, 'paper'))
    rows.extend(
      (
        row.title,
        *(
          tables.cell_text(cell, column.form, row.kind)
          for cell, column in zip(row.cells, columns, strict=True)
        ),
      )
      for row in shown
    )
  return rows


def peers(results, facts):
  """Returns the comparison with the peers, or None if no peers were trained.

  Args:
    results: results of `compare` for the tables.
    facts: point name -> facts of its runs, from `gather.read`, for the tables.

  Returns:
    A `Peers`, or None.
  """
  if gather.PEERS not in facts:
    return None
  minus = {r.output: r.differences for r in results if r.point == gather.PEERS}
  seconds, epochs, parameters = {}, {}, {}
  for fold in facts[gather.PEERS]:
    for network in fold['networks']:
      name = network['network']
      seconds.setdefault(name, []).append(network['seconds'])
      epochs.setdefault(name, []).append(network['epochs'])
      parameters[name] = network['parameters']
  ours = [sum(fold['seconds'].values()) for fold in facts[REFERENCE]]
  dice = claims.negated(minus['fine']['dice'])
  auc = claims.negated(minus['class']['auc'])
  return Peers(
    dice,
    auc,
    seconds,
    epochs,
    parameters,
    min(ours),
    max(ours),
    statistics.median(
      sum(fold['compiling'].values()) for fold in facts[REFERENCE]
    ),
    (
      claims.not_below("MT-Net's masks are", dice, "the U-Net's"),
      claims.not_below('Class-net is', auc, 'DenseNet-121'),
    ),
  )


def rank_loss(records):
  """Computes what the rank loss adds to each of the other losses.

  Args:
    records: point name -> records, for the sweep `rank_loss`.

  Returns:
    Rows of text, and a dict: name of a loss without the rank loss -> metric ->
    estimate of the paired difference that the rank loss makes.
  """
  rows, adds = [], {}
  for without in ('dice', 'dice_entropy'):
    pair = (without, f'{without}_rank')
    results = {
      result.point: result
      for result in compare(sources.RANK_LOSS, records, reference=without)
    }
    adds[without] = results[pair[1]].differences
    for name in pair:
      result = results[name]
      missed = sum(row['coarse_dice'] < _MISSED for row in records[name])
      rows.append(
        (
          result.title,
          *(tables.cell_text(result.estimates[m]) for m in ('dice', 'jaccard')),
          str(missed),
          ''
          if name == without
          else tables.cell_text(adds[without]['dice'], kind='difference'),
        )
      )
  return rows, adds


def groups(records):
  """Returns `subgroups.make` for MT-Net's records as rows of text."""
  rows = []
  for group in subgroups.make(records[REFERENCE], seed=SEED):
    cells = [
      tables.cell_text(group.estimates[key])
      for key in ('reader_dice', 'coarse_dice', 'fine_dice', 'auc')
    ]
    rows.append((f'{group.family}: {group.name}', str(group.nodules), *cells))
  return rows


def readers(records):
  """Computes how well readers agree with each other and with Fine Seg-net.

  Args:
    records: point name -> records, for the tables.

  Returns:
    A dict, name -> estimate of the mean Dice index with single readers, and the
    number of nodules with two or more readers.
  """
  rows = [
    row for row in records[REFERENCE] if row.get('reader_dice') is not None
  ]
  weights = records_lib.patient_weights(rows, seed=SEED)
  each_other = records_lib.column(rows, 'reader_dice')
  estimates = {'each other': bootstrap.mean(each_other, weights)}
  dice = records_lib.column(rows, 'fine_reader_dice')
  estimates['fine'] = bootstrap.mean(dice, weights)
  estimates['fine minus each other'] = bootstrap.mean(
    dice - each_other, weights
  )
  return estimates, len(rows)


def auc_within_folds(records):
  """Returns the (lowest, mean, highest) AUC within single folds of a point."""
  values = []
  for fold in sources.FOLDS:
    rows = [row for row in records if row['fold'] == fold]
    metrics = scores.of_output(rows, 'class', None)
    values.append(metrics['auc'][0])
  return min(values), sum(values) / len(values), max(values)
