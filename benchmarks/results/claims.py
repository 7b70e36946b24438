"""Tests the paper's claims on real nodules.

A claim says that one network is better than another. It holds if the interval
of their difference lies above 0.
"""

from typing import NamedTuple

from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

# Half a percentage point, too small a difference to matter.
MARGIN = 0.005
_METRICS = {'dice': 'DI', 'auc': 'AUC', 'accuracy': 'ACC'}


class Claim(NamedTuple):
  """A claim that one network is better than another.

  Attributes:
    text: the claim.
    where: where the paper makes it, such as 'Table 5'.
    metric: the metric of the comparison.
    paper: the difference in the paper, a fraction; None if the paper has no
      number.
    estimate: our difference, with 'value' and 'ci95', which are None if they
      are undefined.
  """

  text: str
  where: str
  metric: str
  paper: float | None
  estimate: dict

  @property
  def verdict(self):
    """Whether the claim holds, and whether by as much as in the paper."""
    if self.estimate['ci95'] is None:
      return 'no interval'
    low, high = self.estimate['ci95']
    much_less = self.paper is not None and high < self.paper
    if low > 0:
      return 'holds, by less than in the paper' if much_less else 'holds'
    if high < 0:
      return 'does not hold: the opposite does'
    if much_less:
      return 'undecided, but less than in the paper'
    return 'undecided'

  def row(self):
    """Returns the cells of its row in the page's table."""
    return (
      self.text,
      self.where,
      _METRICS[self.metric],
      '-' if self.paper is None else tables.signed(self.paper),
      tables.cell_text(self.estimate, kind='difference'),
      self.verdict,
    )


def of_tables(results):
  """Returns the claims that Tables 1, 4 and 5 make.

  Args:
    results: results of `sweep_statistics.compare` with MT-Net as the reference.

  Returns:
    A list of `Claim`s, for the strategies that were run.
  """
  minus = {(result.point, result.output): result for result in results}

  def claim(text, where, point, output, metric, published=None):
    if (point, output) not in minus:
      return None
    difference = minus[point, output].differences[metric]
    return Claim(text, where, metric, published, negated(difference))

  ours = paper.STRATEGIES['mtnet']

  def gain(strategy, output, metric):
    theirs = paper.STRATEGIES[strategy][output][metric]
    return round(ours[output][metric] - theirs, 3)

  fine = round(ours['fine']['dice'] - ours['coarse']['dice'], 3)
  without = paper.CLASSIFICATION_WITHOUT_COARSE
  claims = [
    claim(
      'Fine Seg-net is better than Coarse Seg-net',
      'Table 5',
      'mtnet',
      'coarse',
      'dice',
      fine,
    ),
    claim(
      'Fine Seg-net is better with the coarse mask than without',
      'Section 4.6',
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
      'the feature feedback of Chen et al.',
      (('class', 'accuracy'),),
    ),
    (
      'serial',
      'the serial strategy of Yu et al.',
      (('fine', 'dice'), ('class', 'accuracy'), ('class', 'auc')),
    ),
  ):
    claims.extend(
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
  claims.extend(
    claim(
      f'MT-Net is better than {name} alone',
      'Section 1',
      'single',
      output,
      metric,
    )
    for output, metric, name in (
      ('fine', 'dice', 'a U-Net'),
      ('class', 'auc', 'an Xception'),
    )
  )
  return [x for x in claims if x]


def of_rank_loss(differences):
  """Returns the claims that the rank loss improves other losses (Figure 8).

  Args:
    differences: differences from `analysis.rank_loss`.

  Returns:
    A list of `Claim`s.
  """
  return [
    Claim(text, 'Figure 8', 'dice', None, differences[pair]['dice'])
    for pair, text in (
      ('dice', 'The rank loss makes the Dice loss better (gamma = 0.02)'),
      (
        'dice_entropy',
        'The rank loss makes the Dice loss with cross-entropy better',
      ),
    )
  ]


def not_below(who, estimate, whom):
  """Returns a sentence on whether one network is at least as good as another.

  Args:
    who: subject and verb, such as 'Class-net is'.
    estimate: estimate of the difference, the first minus the second.
    whom: the second network.
  """
  if estimate['ci95'] is None:
    return f'{who} not compared with {whom}: too few patients.'
  low, high = estimate['ci95']
  if low > 0:
    return f'{who} better than {whom}.'
  if high < 0:
    return f'{who} worse than {whom}.'
  if low > -MARGIN:
    return f'{who} at most half a point worse than {whom}, and may be better.'
  return f'{who} not shown to be better or worse than {whom}.'


def negated(estimate):
  """Returns the estimate of a difference with its sign reversed."""
  if estimate['ci95'] is None:
    value = estimate['value']
    return {'value': None if value is None else -value, 'ci95': None}
  low, high = estimate['ci95']
  return {'value': -estimate['value'], 'ci95': [-high, -low]}
