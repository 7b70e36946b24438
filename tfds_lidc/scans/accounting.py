"""What became of every scan and every nodule that a build should hold."""

from collections.abc import Iterable
from collections.abc import Sequence

from tfds_lidc import errors
from tfds_lidc.ct import index
from tfds_lidc.nodules import selection
from tfds_lidc.scans import files
from tfds_lidc.scans import quarantine


def account(
  nodules: Sequence[selection.Nodule],
  outcomes: Sequence[files.Outcome],
  faults: Iterable[index.FileFault],
  *,
  strict: bool,
) -> tuple[dict[str, int], list[quarantine.Loss]]:
  """Accounts for every scan and nodule of a build from CT.

  Args:
    nodules: all that were selected.
    outcomes: of every scan that is there.
    faults: of all files, whether a nodule needs them or not.
    strict: whether a fault is an error.

  Returns:
    The counts: scans used, missing and quarantined, which add up to those of
    the selection, and the same of nodules, beside those dropped. The losses:
    every fault, and what it costs.

  Raises:
    InputError: something is faulty, if `strict`; or no nodule is left.
  """
  losses = quarantine.merge(
    [loss for o in outcomes for loss in o.losses], faults
  )
  if losses and strict:
    raise errors.InputError(quarantine.describe(losses))
  used = sum(len(o.nodules) for o in outcomes)
  if not used and any(o.losses for o in outcomes):
    raise errors.InputError(f'no nodule is left: {quarantine.describe(losses)}')
  dropped = sum(len(o.dropped) for o in outcomes)
  lost = len({i for loss in losses for i in loss.nodules})
  whole = sum(bool(o.nodules) or not o.losses for o in outcomes)
  scans = len({n.series_uid for n in nodules})
  counts = {
    'scans_used': whole,
    'scans_missing': scans - len(outcomes),
    'scans_quarantined': len(outcomes) - whole,
    'nodules_used': used,
    'nodules_missing': len(nodules) - used - lost - dropped,
    'nodules_quarantined': lost,
    'nodules_dropped': dropped,
  }
  return counts, losses
