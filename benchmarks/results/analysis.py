"""From the records of all points to what the page shows."""

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
# A mask whose Dice index is lower has not found the nodule.
_MISSED = 0.5
_TITLES = {
  gather.PEERS: 'MONAI: U-Net and DenseNet-121',
  gather.DIAMETER: "the readers' diameter alone",
}


class Peers(NamedTuple):
  """MT-Net beside the peers.

  Attributes:
    dice, auc: Fine Seg-net's and Class-net's minus theirs.
    seconds: name of the network -> seconds of training, of each fold.
    epochs: name of the network -> how many it had time for, of each fold.
    parameters: name of the network -> how many.
    fastest, slowest: seconds of all stages of MT-Net, in a fold.
    compiling: seconds in which MT-Net's programs were compiled, of three
      stages, the median over the folds.
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
  """`sweep_statistics.compare` of a sweep, with what stands beside it.

  Args:
    sweep: `sources.Sweep`.
    records: point -> records; those that are no point of the sweep come last.
    reference: name of a point; the sweep's by default.
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
  # Nodules in the same order everywhere, so that they are paired.
  records = {
    name: sorted(rows, key=lambda row: row['nodule_id'])
    for name, rows in records.items()
  }
  return sweep_statistics.compare(
    plan,
    records,
    reference=reference or config.reference,
    shown=config.outputs,
    same_coarse_net=('without_mask',),
    seed=SEED,
  )


def table_rows(results, output, points=None):
  """Rows of a table of one task: ours, the paper's, and differences.

  Args:
    results: of `compare`.
    output: 'fine' or 'class'; with 'fine' come coarse masks.
    points: names, in their order; all by default.

  Returns:
    A list of tuples of text, the title first.
  """
  outputs = ('class',) if output == 'class' else ('coarse', 'fine')
  columns = tables.CLASSIFICATION if output == 'class' else tables.SEGMENTATION
  found = [r for r in results if r.output in outputs]
  if points:
    found = [r for r in found if r.point in points]
    found.sort(key=lambda r: (points.index(r.point), r.output))
  rows = []
  for result in found:
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
  """`Peers`, or None where none were trained.

  Args:
    results: of `compare` of the tables.
    facts: of `gather.read`, of that sweep.
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
  """What the rank loss adds to each of the other losses.

  Args:
    records: point -> records, of the sweep `rank_loss`.

  Returns:
    Rows of text, and name of a loss without it -> metric -> estimate of the
    paired difference that it makes.
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
  """`subgroups.make` of MT-Net's records, as rows of text."""
  rows = []
  for group in subgroups.make(records[REFERENCE], seed=SEED):
    cells = [
      tables.cell_text(group.estimates[key])
      for key in ('reader_dice', 'coarse_dice', 'fine_dice', 'auc')
    ]
    rows.append((f'{group.family}: {group.name}', str(group.nodules), *cells))
  return rows


def readers(records):
  """How well readers agree with each other, and Fine Seg-net with them.

  Returns:
    name -> estimate of the mean Dice index with single readers, and the number
    of nodules with two or more of them.
  """
  rows = [
    row for row in records[REFERENCE] if row.get('reader_dice') is not None
  ]
  weights = records_lib.patient_weights(rows, seed=SEED)
  each_other = records_lib.column(rows, 'reader_dice')
  found = {'each other': bootstrap.mean(each_other, weights)}
  dice = records_lib.column(rows, 'fine_reader_dice')
  found['fine'] = bootstrap.mean(dice, weights)
  found['fine minus each other'] = bootstrap.mean(dice - each_other, weights)
  return found, len(rows)


def auc_within_folds(records):
  """AUC of each fold's own list, of one point: (lowest, mean, highest)."""
  values = []
  for fold in sources.FOLDS:
    rows = [row for row in records if row['fold'] == fold]
    found = scores.of_output(rows, 'class', None)
    values.append(found['auc'][0])
  return min(values), sum(values) / len(values), max(values)
