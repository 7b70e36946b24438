"""Prints the nodules that policies select: all policies, or that of --policy.

    python -m tfds_lidc.cohort

To use your own nodules or folds, write those of a config to a CSV file, change
the file in a spreadsheet, and check what it selects. In a file of your own, one
column `nodule_id`, `seriesuid` or `patient_id` is enough to name nodules:

    python -m tfds_lidc.cohort --config=paper --csv=mine.csv
    python -m tfds_lidc.cohort --policy=nodules=mine.csv,folds=mine.csv
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
import pathlib

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.nodules import lists
from tfds_lidc.nodules import overrides
from tfds_lidc.nodules import selection

_CONFIGS = lidc_nodules_dataset_builder.Builder.builder_configs
_MAX_SHOWN = 5  # ids of a list


def table(policies: Iterable[selection.Policy] | None = None) -> str:
  """Formats the counts of policies; all `selection.POLICIES` by default."""
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


def described(policy: selection.Policy) -> str:
  """Formats one policy's counts, and how its own lists are applied."""
  lines = [table([policy])]
  has_list = policy.nodules is not None or policy.folds is not None
  if has_list and policy.name.partition('-')[0] in _CONFIGS:
    lines += ['', f'dataset: lidc_nodules/{policy.name}']
  if policy.nodules is not None:
    lines += ['', *_left_out(policy)]
  if policy.folds is not None:
    lines += ['', *_split_patients(policy)]
  return '\n'.join(lines)


def _left_out(policy: selection.Policy) -> list[str]:
  """Lists the nodules that a policy names and its other limits exclude."""
  listed = set(policy.nodules or ())
  left_out = collections.defaultdict(list)
  for nodule in selection.clusters():
    limit = selection.excluded_by(policy, nodule)
    if nodule.nodule_id in listed and limit:
      left_out[limit].append(nodule.nodule_id)
  num_selected = len(listed) - sum(map(len, left_out.values()))
  lines = [
    f'nodules: {num_selected} of the {len(listed)} listed ones are selected'
  ]
  for limit, ids in left_out.items():
    more = ', ...' if len(ids) > _MAX_SHOWN else ''
    lines.append(
      f'  {len(ids)} left out by {limit}: {", ".join(ids[:_MAX_SHOWN])}{more}'
    )
  if left_out:
    lines.append(
      '  (--config=all has no such limits; each can be changed, as in '
      '--policy=readers=1-,...)'
    )
  return lines


def _split_patients(policy: selection.Policy) -> list[str]:
  """Warns of patients whose nodules are in several folds."""
  folds = collections.defaultdict(set)
  for nodule in selection.select(policy):
    folds[nodule.patient_id].add(nodule.fold)
  split = sorted(patient for patient, f in folds.items() if len(f) > 1)
  if not split:
    return ['folds: as listed; each patient is in one fold']
  more = ', ...' if len(split) > _MAX_SHOWN else ''
  return [
    f'CAUTION: folds as listed put {len(split)} of {len(folds)} patients into '
    f'several folds ({", ".join(split[:_MAX_SHOWN])}{more}): the test data '
    'partly appear in training, so results are too optimistic'
  ]


def aligned(rows: Mapping[str, Mapping[str, int]]) -> str:
  """Formats counts in aligned columns.

  Args:
    rows: name of a policy -> name of a column -> count; at least one policy,
      and the same columns for all.
  """
  columns = next(iter(rows.values()))
  width = max(18, *(len(name) + 2 for name in rows))
  cells: list[tuple[str, Iterable[object]]] = [('policy', columns)]
  cells += [(name, row.values()) for name, row in rows.items()]
  return '\n'.join(
    f'{name:<{width}}' + ''.join(f'{cell:>11}' for cell in row)
    for name, row in cells
  )


def _write(path: str, policy: selection.Policy) -> None:
  nodules = selection.select(policy)
  try:
    pathlib.Path(path).write_text(
      lists.write(nodules), encoding='utf-8', newline=''
    )
  except OSError as e:
    raise errors.InputError(
      f'cannot write --csv={path} ({e.strerror}); choose another'
    ) from e
  print(
    f'\n{len(nodules)} nodules of {policy.name} -> {path}; '
    '--policy=nodules=FILE and folds=FILE read such a file'
  )


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('cohort', __doc__)
  parser.add_argument(
    '--config',
    default='paper',
    help='the config that --policy changes (default: %(default)s)',
  )
  parser.add_argument('--policy', default='', help=overrides.HELP)
  parser.add_argument(
    '--csv',
    type=command_line.path,
    help='writes the nodules that --config and --policy select to this file: '
    'nodule_id, patient_id, seriesuid, fold, label',
  )
  args = parser.parse_args()
  if args.config not in selection.POLICIES:
    raise errors.InputError(
      f'--config={args.config} does not exist; it is one of '
      f'{", ".join(selection.POLICIES)}'
    )
  policy = overrides.apply(selection.POLICIES[args.config], args.policy)
  print(described(policy) if args.policy else table())
  if args.csv:
    _write(args.csv, policy)


if __name__ == '__main__':
  errors.exit_on_input_error(main)
