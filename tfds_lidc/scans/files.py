"""Stores scans that were read, so that an interrupted build can continue.

There is one file per scan, beside the dataset until that is complete. A build
therefore needs the memory of one scan per process for a dataset of any size.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any
from typing import NamedTuple
import uuid

import numpy as np

from tfds_lidc.ct import metaimage
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader

_FORMAT = 4  # increase it when the files, or what is read, change


class Outcome(NamedTuple):
  """The result of reading a scan."""

  file: str  # of the examples, see `load_examples`
  nodules: tuple[str, ...]  # ids of nodules with an example
  dropped: tuple[
    str, ...
  ]  # ids of nodules where no pixel reaches the consensus
  losses: tuple[quarantine.Loss, ...]


@dataclasses.dataclass(frozen=True)
class ReadToFile:
  """Calls `reader.read` and stores the result, unless an earlier run did.

  It is a class so that it can be pickled together with its directory.

  Attributes:
    directory: the directory of the files.
  """

  directory: str

  def recall(self, job: reader.Job) -> Outcome | None:
    """Returns the stored outcome of a scan, or None."""
    return _stored(self._path(job))

  def _path(self, job: reader.Job) -> pathlib.Path:
    return pathlib.Path(self.directory) / f'{_fingerprint(job)}.npz'

  def __call__(self, job: reader.Job) -> Outcome:
    """Reads a scan, or returns its stored outcome."""
    path = self._path(job)
    stored = _stored(path)
    if stored:
      return stored
    examples, dropped, losses = reader.read(job)
    content = {
      'nodules': list(dict.fromkeys(e.nodule_id for e in examples)),
      'dropped': dropped,
      'losses': losses,
      'examples': [e[:2] for e in examples],
    }
    arrays: dict[str, Any] = {'outcome': json.dumps(content)}
    for name in reader.Example._fields[2:]:
      arrays[name] = np.array([getattr(e, name) for e in examples])
    # A name that no other process on any machine uses.
    partial = path.with_suffix(f'.{uuid.uuid4().hex}')
    with open(partial, 'wb') as f:
      np.savez(f, **arrays)
    os.replace(partial, path)
    return _outcome(path, content)


def _stored(path: pathlib.Path) -> Outcome | None:
  try:
    with path.open('rb') as f, np.load(f) as stored:
      return _outcome(path, json.loads(str(stored['outcome'])))
  # The file is written again if it is missing or damaged, which can raise any
  # exception of zipfile, zlib, NumPy or JSON.
  except Exception:
    return None


def _outcome(path: pathlib.Path, content: dict[str, Any]) -> Outcome:
  return Outcome(
    str(path),
    tuple(content['nodules']),
    tuple(content['dropped']),
    tuple(
      quarantine.Loss(path, fault, reason, tuple(ids))
      for path, fault, reason, ids in content['losses']
    ),
  )


def folder(cache_dir: str | os.PathLike[str], config_name: str) -> pathlib.Path:
  """Returns the folder that keeps the scans of a config during a build."""
  return pathlib.Path(cache_dir) / 'scans' / config_name


def load_examples(outcome: Outcome) -> list[reader.Example]:
  """Loads the examples of a scan."""
  with open(outcome.file, 'rb') as f, np.load(f) as stored:
    which = json.loads(str(stored['outcome']))['examples']
    planes = [stored[name] for name in reader.Example._fields[2:]]
  return [
    reader.Example(*what, *of_one)
    for what, *of_one in zip(which, *planes, strict=True)
  ]


def crashed(job: reader.Job) -> Outcome:
  """Returns the outcome of a scan that crashed the process that read it."""
  return Outcome('', (), (), (reader.crash_loss(job),))


def _fingerprint(job: reader.Job) -> str:
  """Digests all that the examples depend on: nodules, policy and files."""
  digest = hashlib.sha256()
  policy = job.policy
  digest.update(
    repr(
      (
        _FORMAT,
        [(n.nodule_id, n.annotation_ids, n.ratings) for n in job.nodules],
        (policy.consensus, policy.slices, policy.spacing_mm),
        job.series,
        job.faults,
      )
    ).encode()
  )
  for s in job.series.slices if job.series else ():
    try:
      stat = os.stat(metaimage.file_of(s.path))
    except OSError:  # deleted since it was indexed; reading reports it
      continue
    digest.update(f'{stat.st_size} {stat.st_mtime_ns}'.encode())
  return f'{job.nodules[0].scan_id}-{digest.hexdigest()[:24]}'
