"""Prints what every policy selects; with --policy, what that one selects.

python -m tfds_lidc.cohort
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.nodules import overrides
from tfds_lidc.nodules import selection


def table(policies: Iterable[selection.Policy] | None = None) -> str:
  """What policies select, as text; all `selection.POLICIES` by default."""
  rows = {}
  for policy in selection.POLICIES.values() if policies is None else policies:
    nodules = selection.select(policy)
    splits = collections.Counter(n.split for n in nodules)
    rows[policy.name] = {
      **selection.counts(nodules),
      **{split: splits[split] for split in selection.SPLITS},
    }
  num_clusters = len(selection.clusters())
  return f'{num_clusters} clusters in nodules.csv\n\n{aligned(rows)}'


def aligned(rows: Mapping[str, Mapping[str, int]]) -> str:
  """Counts as text, in columns.

  Args:
    rows: name of a policy -> name of a column -> count; at least one policy,
      and the same columns for all.
  """
  columns = next(iter(rows.values()))
  width = max(18, *(len(name) + 2 for name in rows))
  cells = [('policy', columns)]
  cells += [(name, row.values()) for name, row in rows.items()]
  return '\n'.join(
    f'{name:<{width}}' + ''.join(f'{cell:>11}' for cell in row)
    for name, row in cells
  )


def main() -> None:
  parser = command_line.parser('cohort', __doc__)
  parser.add_argument(
    '--config', default='paper', help='what --policy changes (%(default)s)'
  )
  parser.add_argument('--policy', default='', help=overrides.HELP)
  args = parser.parse_args()
  if args.config not in selection.POLICIES:
    raise errors.InputError(
      f'--config={args.config} is none of {", ".join(selection.POLICIES)}'
    )
  policies = None
  if args.policy:
    policies = [overrides.apply(selection.POLICIES[args.config], args.policy)]
  print(table(policies))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
