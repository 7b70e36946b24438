"""Accounts for every scan and every nodule that a build should contain."""

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
    nodules: all selected nodules.
    outcomes: the outcomes of all scans that are on this disk.
    faults: faults of all files, even of those that no nodule needs.
    strict: whether any fault is an error.

  Returns:
    The counts: scans used, missing and quarantined, which add up to the scans
    of the selection; likewise nodules used, missing, quarantined and dropped.
    The losses: every fault with the nodules that it costs.

  Raises:
    InputError: there is a fault and `strict` is set; or no nodule remains.
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
