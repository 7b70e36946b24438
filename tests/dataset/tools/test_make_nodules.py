"""nodules.csv can be reproduced."""

import dataclasses
from importlib import resources
import random

from tfds_lidc.nodules import selection
from tfds_lidc.tools import make_nodules


def test_rows_of_a_scan_are_reproduced():
  # 14 is LIDC-IDRI-0003 with four nodules, 66 has a cluster of more than four
  # annotations, and 408 has five clusters or more.
  for scan_id in (14, 66, 408):
    expected = [
      dataclasses.replace(n, fold=-1)
      for n in selection.clusters()
      if n.scan_id == scan_id
    ]
    assert expected
    assert make_nodules.scan_nodules(scan_id) == expected


def test_folds_are_reproduced():
  unassigned = [dataclasses.replace(n, fold=-1) for n in selection.clusters()]
  assert make_nodules.assign_folds(unassigned) == list(selection.clusters())


def test_file_is_reproduced_byte_by_byte():
  nodules = list(selection.clusters())
  random.Random(0).shuffle(nodules)
  nodules.sort(
    key=lambda n: (n.patient_id, n.scan_id, int(n.nodule_id.rsplit('_', 1)[1]))
  )
  path = resources.files('tfds_lidc').joinpath('nodules.csv')
  assert make_nodules.DEFAULT_OUT == path
  assert selection.write_csv(nodules) == path.read_text()
