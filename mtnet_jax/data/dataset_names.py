"""What the name of a dataset says about its config, policy and split.

No function opens a file: the files of a policy may be gone, and a name in a
stranger's model could point at any file.
"""

import re

BY_PATIENT = 'by patient'


def base_and_changes(name: str) -> tuple[str, str]:
  """Splits the name of a dataset into its config and its policy.

  For example 'lidc_nodules/paper?slices=all' into 'paper' and 'slices=all'. The
  policy is '' where the name has none.

  Args:
    name: as in `lidc.builder`, or as returned by `lidc.lasting_name`.
  """
  base, *changes = re.split('[?-]', name.partition('/')[2], maxsplit=1)
  return base, ''.join(changes)


def how_split(name: str) -> str:
  """Describes how a dataset is split, such as 'by patient'.

  Args:
    name: as in `lidc.builder`, or as returned by `lidc.lasting_name`.
  """
  split = split_of(name)
  own = ', in folds of its own' if split.startswith('folds') else ''
  if 'by_nodule' in split:
    return f'by nodule (a patient can be in several splits){own}'
  # The file of folds is not opened, so whether it divides patients is unknown.
  return own[2:] if split == 'folds_' else f'{BY_PATIENT}{own}'


def split_of(name: str) -> str:
  """Returns the part of a dataset's name that changes its folds.

  It is '' for the default folds. No file is opened.

  Args:
    name: as in `lidc.builder`, or as returned by `lidc.lasting_name`.
  """
  found = re.search(r'[?,-] *(split_by[=_]nodule|folds_\w+|folds=)', name)
  return found[1].replace('=', '_') if found else ''
