"""Compares the checkpoints of runs bit for bit, and reads their logs."""

import csv
import struct

import numpy as np
from tensorboardX.proto import event_pb2

from mtnet_jax.storage import checkpoint

STAGES = ('coarse', 'class', 'fine')


def leaves(tree, prefix=''):
  if not isinstance(tree, dict):
    return {prefix: np.asarray(tree)}
  found = {}
  for key, value in tree.items():
    found.update(leaves(value, f'{prefix}/{key}'))
  return found


def read(directory, which):
  checkpoints = checkpoint.Checkpoints(directory)
  if which == 'latest':
    return checkpoints.load_latest(like=None)[0]
  return checkpoints.load_best()[0]


def pairs_of_checkpoints(left, right, stages=STAGES):
  """Yields (name, leaves of left, leaves of right) for every checkpoint."""
  for stage in stages:
    for which in ('latest', 'best'):
      ours, theirs = (
        leaves(read(workdir / 'checkpoints' / stage, which))
        for workdir in (left, right)
      )
      yield f'{stage} {which}', ours, theirs


def assert_same_checkpoints(left, right, stages=STAGES):
  """Asserts that latest and best of every stage are equal, bit for bit."""
  for which, ours, theirs in pairs_of_checkpoints(left, right, stages):
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
      np.testing.assert_array_equal(
        leaf, theirs[name], err_msg=f'{which} {name}'
      )


def losses(workdir):
  with open(workdir / 'train_log.csv', newline='') as file:
    return [
      (row['stage'], row['epoch'], row['loss']) for row in csv.DictReader(file)
    ]


def events(path):
  """Yields each `Event` in a file of TensorBoard.

  Each record is framed as a TFRecord: eight bytes of length, four bytes of its
  checksum, the record, and four bytes of the record's checksum.
  """
  data = path.read_bytes()
  while data:
    (length,) = struct.unpack_from('<Q', data)
    yield event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
