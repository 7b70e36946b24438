"""What became of every scan and every nodule that a build should hold."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses

from tfds_lidc import errors
from tfds_lidc.ct import index
from tfds_lidc.nodules import selection
from tfds_lidc.scans import files
from tfds_lidc.scans import quarantine


@dataclasses.dataclass(frozen=True)
class Account:
  """Of one build from CT.

  Attributes:
    counts: scans used, missing and quarantined, which add up to those of the
      selection; the same of nodules, beside those dropped.
    losses: every fault, and what it costs.
  """

  counts: dict[str, int]
  losses: list[quarantine.Loss]


def dropped(outcomes: Iterable[files.Outcome]) -> list[str]:
  """The nodules of which no pixel reaches the consensus."""
  return [nodule_id for o in outcomes for nodule_id in o.dropped]


def settle(
  nodules: Sequence[selection.Nodule],
  outcomes: Sequence[files.Outcome],
  faults: Iterable[index.FileFault],
  *,
  strict: bool,
) -> Account:
  """Accounts for every scan and nodule.

  Args:
    nodules: all that were selected.
    outcomes: of every scan that is there.
    faults: of all files, whether a nodule needs them or not.
    strict: whether a fault is an error.

  Raises:
    InputError: something is faulty, if `strict`; or no nodule is left.
  """
  losses = quarantine.merge(
    [loss for o in outcomes for loss in o.losses], faults
  )
  if losses and strict:
    raise errors.InputError(quarantine.complaint(losses))
  used = sum(len(o.nodules) for o in outcomes)
  if not used and any(o.losses for o in outcomes):
    raise errors.InputError(
      f'no nodule is left: {quarantine.complaint(losses)}'
    )
  empty = len(dropped(outcomes))
  lost = len({i for loss in losses for i in loss.nodules})
  whole = sum(bool(o.nodules) or not o.losses for o in outcomes)
  scans = len({n.series_uid for n in nodules})
  counts = {
    'scans_used': whole,
    'scans_missing': scans - len(outcomes),
    'scans_quarantined': len(outcomes) - whole,
    'nodules_used': used,
    'nodules_missing': len(nodules) - used - lost - empty,
    'nodules_quarantined': lost,
    'nodules_dropped': empty,
  }
  return Account(counts, losses)
