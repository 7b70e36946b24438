"""What the name of a dataset says of it.

lidc_nodules/NAME              as it comes, such as paper
lidc_nodules/NAME?KEY=VALUE    changed by a policy, see `tfds_lidc.overrides`
lidc_nodules/NAME-KEY_VALUE    the same, by the name that its build has on disk
"""

import re


def base_and_changes(name):
  """'lidc_nodules/paper?slices=all' -> 'paper', 'slices=all'; '' for none."""
  base, *changes = re.split('[?-]', name.partition('/')[2], maxsplit=1)
  return base, ''.join(changes)


def how_split(name):
  """'by patient', or how else; continues the word 'split'."""
  _, changes = base_and_changes(name)
  if re.search('split_by[=_]nodule', changes):
    return 'by nodule (a patient can be in several splits)'
  return 'by patient'
