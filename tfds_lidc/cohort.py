"""Prints what every policy selects.

python -m tfds_lidc.cohort
"""

import argparse
import collections
from collections.abc import Iterable

from tfds_lidc import errors
from tfds_lidc.nodules import overrides
from tfds_lidc.nodules import selection


def table(policies: Iterable[selection.Policy] | None = None) -> str:
  """What policies select, as text; all `selection.POLICIES` by default."""
  columns = (
    'policy',
    'benign',
    'malignant',
    'open',
    'nodules',
    'patients',
    'scans',
    *selection.SPLITS,
  )
  policies = list(selection.POLICIES.values() if policies is None else policies)
  width = max(18, *(len(policy.name) + 2 for policy in policies))
  lines = [
    f'{len(selection.clusters())} clusters in nodules.csv',
    '',
    f'{columns[0]:<{width}}' + ''.join(f'{c:>11}' for c in columns[1:]),
  ]
  for policy in policies:
    nodules = selection.select(policy)
    labels = collections.Counter(n.label for n in nodules)
    splits = collections.Counter(n.split for n in nodules)
    row = (
      labels[selection.BENIGN],
      labels[selection.MALIGNANT],
      labels[selection.OPEN],
      len(nodules),
      len({n.patient_id for n in nodules}),
      len({n.scan_id for n in nodules}),
      *(splits[split] for split in selection.SPLITS),
    )
    lines.append(f'{policy.name:<{width}}' + ''.join(f'{c:>11}' for c in row))
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m tfds_lidc.cohort',
    description='Prints what every policy selects.',
  )
  parser.add_argument(
    '--config', default='paper', help='what --policy changes (%(default)s)'
  )
  parser.add_argument('--policy', default='', help=overrides.HELP)
  args = parser.parse_args()
  if args.config not in selection.POLICIES:
    raise errors.InputError(
      f'--config={args.config} is none of {", ".join(selection.POLICIES)}'
    )
  if args.policy:
    changed = overrides.apply(selection.POLICIES[args.config], args.policy)
    print(table([changed]))
  else:
    print(table())


if __name__ == '__main__':
  errors.exit_on_input_error(main)
