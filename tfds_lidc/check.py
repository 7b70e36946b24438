"""Reports which scans of LIDC-IDRI are on this disk and which files are faulty.

    python -m tfds_lidc.check --lidc_dir=~/LIDC-IDRI [--json=FILE]
    python -m tfds_lidc.check --luna_dir=~/LUNA16 [--json=FILE]

The command reads every header, and the pixels of every slice on which a reader
marked a nodule. It names broken files, missing slices inside nodules and series
that do not belong to LIDC-IDRI, and counts the nodules that each policy would
find.

A policy finds a nodule if its record can be made exactly, that is, if the slice
that the annotations choose can be read. If another slice of the nodule is
missing, the report names it, but only builds with slices=all need it.
"""

import collections
import json
import os
import pathlib
from typing import Any
from typing import NamedTuple

import tqdm

from tfds_lidc import cohort
from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import metaimage
from tfds_lidc.ct import pixels
from tfds_lidc.lidc_nodules import building
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.scans import findings
from tfds_lidc.scans import orientation
from tfds_lidc.scans import quarantine
from tfds_lidc.scans import reader

_LEVELS = sorted({policy.consensus for policy in selection.POLICIES.values()})
_MIN_PARALLEL = 16  # scans; below, starting processes takes longer
_MAX_LINES = 20  # per kind of fault, on the screen
_FOUND = (
  'found: the slice of the record, the one with the largest consensus area, '
  'can be read;\nthe faults above name other slices that are missing; only '
  'slices=all needs them'
)


class _Checked(NamedTuple):
  """The losses of one scan, and ids of intact nodules by consensus level."""

  losses: list[quarantine.Loss]
  whole: dict[tuple[int, int], list[str]]


def check(
  lidc_dir: str | os.PathLike[str],
  *,
  of_luna16: bool = False,
  cache_dir: str | os.PathLike[str] | None = None,
  workers: int = 1,
) -> dict[str, Any]:
  """Checks a download.

  Args:
    lidc_dir: directory of the DICOM files.
    of_luna16: whether the directory contains volumes of LUNA16 instead.
    cache_dir: directory of the header cache; None for no cache.
    workers: number of processes.

  Returns:
    The content of `--json`: counts of `files` and `scans`, a list of `faults`
    (`path`, `fault`, `reason`, affected `nodules`), and, in `policies`, the
    counts of nodules that each policy can build.

  Raises:
    InputError: the directory is missing, empty or has no CT.
  """
  if of_luna16:
    index = orientation.orient(metaimage.load(lidc_dir))
  else:
    index = series_index.load(lidc_dir, cache_dir=cache_dir, workers=workers)
  known = annotations.scans()
  found = {uid: s for uid, s in index.series.items() if uid in known}
  jobs = reader.jobs(selection.clusters(), selection.ANY_VOTE, index)
  checked = list(
    tqdm.tqdm(
      parallel.ordered_map(
        _check_scan,
        jobs,
        workers=workers if len(jobs) >= _MIN_PARALLEL else 1,
        on_crash=_crashed,
      ),
      desc='reading slices of nodules',
      total=len(jobs),
      unit='scan',
      delay=2,
      leave=False,
    )
  )
  losses = [loss for scan in checked for loss in scan.losses]
  faults = quarantine.merge(losses, index.faults)
  for uid, series in found.items():
    faults += findings.missing_elsewhere(
      known[uid].scan_id, series, index, losses
    )
    faults += findings.duplicates(series)
  faults += findings.other_series(index)
  missing = [scan.patient_id for uid, scan in known.items() if uid not in found]
  return {
    'lidc_dir': os.fspath(lidc_dir),
    'files': {
      'total': index.num_files,
      'ct_images': sum(len(s.slices) for s in index.series.values()),
      'other_images': sum(map(len, index.others.values())),
      'broken': len(index.faults),
    },
    'scans': {
      'in_lidc_idri': len(known),
      'found': len(found),
      'complete': sum(
        not findings.missing(known[uid].scan_id, series)
        for uid, series in found.items()
      ),
      'simulated': sum(series.simulated for series in found.values()),
      'missing': len(missing),
      'missing_patients': missing,
    },
    'faults': [fault._asdict() for fault in faults],
    'policies': {
      policy.name: _policy_counts(policy, checked)
      for policy in selection.POLICIES.values()
    },
  }


def _check_scan(job: reader.Job) -> _Checked:
  """Reads every slice of every nodule of a scan."""
  losses: list[quarantine.Loss] = []
  planes: dict[str, pixels.Reading] = {}
  whole: dict[tuple[int, int], list[str]] = {level: [] for level in _LEVELS}
  for nodule in job.nodules:
    broken = set()
    for patch in patches.place_nodule(nodule, job.policy):
      _, loss = reader.read_patch(job, nodule, patch, planes)
      if loss:
        broken.add(patch.slice_index)
        losses.append(loss)
    for level in _LEVELS:
      # Only the consensus level decides which slice is the largest.
      placed = patches.place_nodule(
        nodule, selection.Policy('', consensus=level)
      )
      if placed and placed[0].slice_index not in broken:
        whole[level].append(nodule.nodule_id)
  return _Checked(losses, whole)


def _crashed(job: reader.Job) -> _Checked:
  return _Checked([reader.crash_loss(job)], {level: [] for level in _LEVELS})


def _policy_counts(
  policy: selection.Policy, checked: list[_Checked]
) -> dict[str, int]:
  whole = {i for scan in checked for i in scan.whole[policy.consensus]}
  nodules = selection.select(policy)
  counts = selection.counts([n for n in nodules if n.nodule_id in whole])
  return {'selected': len(nodules), 'found': counts.pop('nodules'), **counts}


def table(report: dict[str, Any]) -> str:
  """Formats a report of `check` as text."""
  files, scans = report['files'], report['scans']
  lines = [
    f'{report["lidc_dir"]}: {scans["found"]} of {scans["in_lidc_idri"]} scans '
    f'of LIDC-IDRI, {scans["complete"]} of them complete',
    f'{files["total"]} files: {files["ct_images"]} CT images, '
    f'{files["other_images"]} other images, {files["broken"]} broken',
  ]
  if scans['simulated']:
    lines.append(f'{scans["simulated"]} of the scans found are SIMULATED')
  missing = scans['missing_patients']
  if missing:
    more = ', ...; --json lists them' if len(missing) > 5 else ''
    lines.append(f'missing: {", ".join(missing[:5])}{more}')
  faults = collections.defaultdict(list)
  for fault in report['faults']:
    faults[fault['fault']].append(fault)
  lines += ['', 'no faults' if not faults else 'faults']
  for kind, members in sorted(faults.items()):
    lines.append(f'  {kind}: {len(members)}')
    for fault in members[:_MAX_LINES]:
      touched = ', '.join(fault['nodules'])
      touched = f' [nodule {touched}]' if touched else ''
      found = errors.one_line(f'{fault["path"]} {fault["reason"]}{touched}')
      lines.append(f'    {found}')
    if len(members) > _MAX_LINES:
      rest = len(members) - _MAX_LINES
      lines.append(f'    and {rest} more; --json lists them')
  lines += ['', _FOUND, cohort.aligned(report['policies'])]
  return '\n'.join(lines)


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('check', __doc__)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument(
    '--lidc_dir', type=command_line.path, help='folder with the DICOM files'
  )
  source.add_argument(
    '--luna_dir',
    type=command_line.path,
    help='folder with the volumes of LUNA16 instead',
  )
  parser.add_argument(
    '--json', type=command_line.path, help='file to write everything to'
  )
  command_line.add_data_dir(
    parser,
    '; headers are cached there, also for the build',
  )
  command_line.add_workers(parser)
  args = parser.parse_args()
  directory = pathlib.Path(args.lidc_dir or args.luna_dir)
  try:
    report = check(
      directory,
      of_luna16=bool(args.luna_dir),
      cache_dir=building.cache_dir(args.data_dir),
      workers=args.workers,
    )
    if args.json:
      with open(args.json, 'w', encoding='utf-8') as f:
        json.dump(report, f, indent=1)
  except OSError as e:
    raise errors.InputError(
      f'cannot write {e.filename} ({e.strerror}); choose another --json or '
      '--data_dir'
    ) from e
  print(table(report))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
