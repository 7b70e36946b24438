"""The paper's claims, and what the real nodules say of each.

A claim is that something is better than something else. It holds where the
interval of the difference excludes 0 on that side.
"""

from typing import NamedTuple

from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

# Half a point: a difference that nobody would notice.
MARGIN = 0.005
_METRICS = {'dice': 'DI', 'auc': 'AUC', 'accuracy': 'ACC'}


class Claim(NamedTuple):
  """That one thing is better than another.

  Attributes:
    text: what is claimed.
    where: in the paper.
    metric: of which.
    paper: by how much the paper has it, a fraction; None where it has no
      number.
    estimate: what was found: 'value' and 'ci95' of the difference, None where
      they are undefined.
  """

  text: str
  where: str
  metric: str
  paper: float | None
  estimate: dict

  @property
  def verdict(self):
    """'holds', 'the opposite holds', or 'cannot be told', and how."""
    if self.estimate['ci95'] is None:
      return 'no interval'
    low, high = self.estimate['ci95']
    much_less = self.paper is not None and high < self.paper
    if low > 0:
      return 'holds, by less than in the paper' if much_less else 'holds'
    if high < 0:
      return 'does not hold: the opposite does'
    if much_less:
      return 'cannot be told; as much as in the paper it is not'
    return 'cannot be told'

  def row(self):
    """Cells of the page's table."""
    return (
      self.text,
      self.where,
      _METRICS[self.metric],
      '-' if self.paper is None else tables.signed(self.paper),
      tables.cell_text(self.estimate, kind='difference'),
      self.verdict,
    )


def of_tables(results):
  """Claims that Tables 1, 4 and 5 make.

  Args:
    results: of `sweep_statistics.compare` with MT-Net as the reference.

  Returns:
    A list of `Claim`: those whose strategies were run.
  """
  minus = {(result.point, result.output): result for result in results}

  def claim(text, where, point, output, metric, published=None):
    if (point, output) not in minus:
      return None
    found = minus[point, output].differences[metric]
    return Claim(text, where, metric, published, negated(found))

  ours = paper.STRATEGIES['mtnet']

  def gain(strategy, output, metric):
    theirs = paper.STRATEGIES[strategy][output][metric]
    return round(ours[output][metric] - theirs, 3)

  fine = round(ours['fine']['dice'] - ours['coarse']['dice'], 3)
  without = paper.CLASSIFICATION_WITHOUT_COARSE
  found = [
    claim(
      'Fine Seg-net is better than Coarse Seg-net',
      'Table 5',
      'mtnet',
      'coarse',
      'dice',
      fine,
    ),
    claim(
      'and so by the coarse mask: it is better than Fine Seg-net without it',
      '4.6',
      'without_mask',
      'fine',
      'dice',
    ),
    *(
      claim(
        'Class-net is better with the coarse mask than without',
        'Table 4',
        'without_mask',
        'class',
        metric,
        round(ours['class'][metric] - without[metric], 3),
      )
      for metric in ('auc', 'accuracy')
    ),
  ]
  for strategy, name, pairs in (
    ('shared', 'the shared encoder of Wu et al.', (('fine', 'dice'),)),
    (
      'feedback',
      'the features fed back of Chen et al.',
      (('class', 'accuracy'),),
    ),
    (
      'serial',
      'the serial strategy of Yu et al.',
      (('fine', 'dice'), ('class', 'accuracy'), ('class', 'auc')),
    ),
  ):
    found.extend(
      claim(
        f'MT-Net is better than {name}',
        'Table 1',
        strategy,
        output,
        metric,
        gain(strategy, output, metric),
      )
      for output, metric in pairs
    )
  found.extend(
    claim(
      f'MT-Net is better than {name} alone',
      '1',
      'single',
      output,
      metric,
    )
    for output, metric, name in (
      ('fine', 'dice', 'a U-Net'),
      ('class', 'auc', 'an Xception'),
    )
  )
  return [claim for claim in found if claim]


def of_rank_loss(differences):
  """That the rank loss is worth its weight (Figure 8).

  Args:
    differences: of `analysis.rank_loss`.

  Returns:
    A list of `Claim`.
  """
  return [
    Claim(text, 'Figure 8', 'dice', None, differences[pair]['dice'])
    for pair, text in (
      ('dice', 'The rank loss makes the Dice loss better (gamma = 0.02)'),
      ('dice_entropy', 'and the Dice loss with cross-entropy'),
    )
  ]


def not_below(who, estimate, whom):
  """A sentence: above, not below by more than `MARGIN`, below, or open."""
  if estimate['ci95'] is None:
    return f'{who} not compared with {whom}: too few patients.'
  low, high = estimate['ci95']
  if low > 0:
    return f'{who} better than {whom}.'
  if high < 0:
    return f'{who} worse than {whom}.'
  if low > -MARGIN:
    return (
      f'{who} not worse than {whom}, by half a point at most; whether better'
      ' cannot be told.'
    )
  return f'{who} neither better nor worse than {whom}, as far as can be told.'


def negated(estimate):
  """The difference the other way round."""
  if estimate['ci95'] is None:
    value = estimate['value']
    return {'value': None if value is None else -value, 'ci95': None}
  low, high = estimate['ci95']
  return {'value': -estimate['value'], 'ci95': [-high, -low]}
