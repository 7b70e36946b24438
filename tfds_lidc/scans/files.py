"""Keeps scans that were read, so that an interrupted build goes on from there.

One file per scan, beside the dataset until that is complete. The memory of a
build stays that of one scan per process, however large the dataset.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import NamedTuple
import uuid

import numpy as np

from tfds_lidc.ct import metaimage
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader

_FORMAT = 3  # raise it when the files, or what is read, change


class Outcome(NamedTuple):
  """What reading a scan came to."""

  file: str  # holds the examples, see `load_examples`
  nodules: tuple[str, ...]  # those that have an example
  dropped: tuple[str, ...]  # those of which no pixel reaches the consensus
  losses: tuple[quarantine.Loss, ...]


@dataclasses.dataclass(frozen=True)
class ReadToFile:
  """`reader.read` into a file, unless that is there from an earlier run.

  A class, so that a process can be sent it together with its directory.

  Attributes:
    directory: where the files go.
  """

  directory: str

  def recall(self, job: reader.Job) -> Outcome | None:
    """The outcome of an earlier run, if there is one."""
    return _stored(self._path(job))

  def _path(self, job: reader.Job) -> pathlib.Path:
    return pathlib.Path(self.directory) / f'{_fingerprint(job)}.npz'

  def __call__(self, job: reader.Job) -> Outcome:
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
    # A name that no other process uses, on any machine.
    partial = path.with_suffix(f'.{uuid.uuid4().hex}')
    with open(partial, 'wb') as f:
      np.savez(
        f,
        outcome=json.dumps(content),
        **{
          name: np.array([getattr(e, name) for e in examples])
          for name in reader.Example._fields[2:]
        },
      )
    os.replace(partial, path)
    return _outcome(path, content)


def _stored(path: pathlib.Path) -> Outcome | None:
  try:
    with path.open('rb') as f, np.load(f) as stored:
      return _outcome(path, json.loads(str(stored['outcome'])))
  # Not there yet, or damaged, which surfaces as any exception of zipfile, zlib,
  # NumPy or JSON: then it is written again.
  except Exception:
    return None


def _outcome(path: pathlib.Path, content: dict) -> Outcome:
  return Outcome(
    str(path),
    tuple(content['nodules']),
    tuple(content['dropped']),
    tuple(
      quarantine.Loss(*what, tuple(ids)) for *what, ids in content['losses']
    ),
  )


def folder(cache_dir: str | os.PathLike, config_name: str) -> pathlib.Path:
  """Where the scans of one config are kept until it is built."""
  return pathlib.Path(cache_dir) / 'scans' / config_name


def load_examples(outcome: Outcome) -> list[reader.Example]:
  """The examples that a scan was read to."""
  with open(outcome.file, 'rb') as f, np.load(f) as stored:
    which = json.loads(str(stored['outcome']))['examples']
    planes = [stored[name] for name in reader.Example._fields[2:]]
  return [
    reader.Example(*what, *of_one)
    for what, *of_one in zip(which, *planes, strict=True)
  ]


def crashed(job: reader.Job) -> Outcome:
  """The outcome of a scan that crashed the process that read it."""
  return Outcome('', (), (), (reader.crash(job),))


def _fingerprint(job: reader.Job) -> str:
  """Changes with all that the examples depend on: nodules, policy, files."""
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
    except OSError:  # gone since it was indexed: reading will say so
      continue
    digest.update(f'{stat.st_size} {stat.st_mtime_ns}'.encode())
  return f'{job.nodules[0].scan_id}-{digest.hexdigest()[:24]}'
