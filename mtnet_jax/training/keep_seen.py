"""Writes which nodules a run trains on or selects by, before it trains."""

from collections.abc import Callable
from collections.abc import Mapping
import pathlib

import ml_collections

from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.models import nets
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors


def gather(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  splits: Mapping[str, nodules.Nodules],
  *,
  say: Callable[[str], object] = print,
) -> seen_lib.Seen:
  """Returns what a run will have seen, including what it starts from has seen.

  Args:
    config: as returned by `from_run.fill_in`.
    workdir: the run directory, which may still belong to another run.
    splits: split name -> nodules, of the config's dataset.
    say: prints a line.

  Returns:
    The nodules seen. Where the run directory already has a list, only those of
    this run: the model that it started from may be gone by now.

  Raises:
    errors.InputError: the model that the run starts from has seen nodules of
      the run's test split.
  """
  own = seen_lib.Seen(frozenset(nodules.used_for(splits)))
  if not config.start_from or pathlib.Path(workdir, seen_lib.FILE).exists():
    return own
  before = _of_source(config, say)
  _check_test(config, splits['test'], own, before)
  return seen_lib.union([own, before])


def write(workdir: pathlib.Path, seen: seen_lib.Seen) -> None:
  """Writes seen.csv, unless it exists.

  Args:
    workdir: the run directory.
    seen: as returned by `gather`.

  Raises:
    errors.InputError: the existing file lacks nodules of this run.
  """
  path = pathlib.Path(workdir, seen_lib.FILE)
  if not path.exists():
    seen_lib.write(path, seen)
  elif not seen.rows <= seen_lib.read(path).rows:
    raise errors.InputError(
      f'{path} lacks nodules of the training or model selection of this run: it'
      ' belongs to another run. Choose another --workdir.'
    )


def _of_source(config, say):
  """Returns what the model of `config.start_from` has seen."""
  try:
    found = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    ).seen
  except errors.InputError:
    # A run can be resumed without the model that it started from.
    found = None
  if found is None:
    say(
      f'{config.start_from} has no list of the nodules that it has seen. It is'
      ' assumed to have seen all of LIDC-IDRI except its test fold.'
    )
    # `from_run` has checked that this run has the same folds.
    rows = lidc.seen_by_fold(
      config.start_from_dataset, config.dataset.rotate_folds
    )
    found = seen_lib.Seen(frozenset(rows), by_fold=True)
  return found


def _check_test(config, test, own, before):
  """Raises where the source's list contains nodules of the test split.

  A nodule also counts as seen if another nodule of its patient was. Patients
  whom this run itself has in several splits are excepted.
  """
  if before.by_fold:
    return
  known = seen_lib.nodules(before)
  patients = seen_lib.patients(before).keys() - seen_lib.patients(own).keys()
  num_seen = sum(
    str(nodule) in known or str(patient) in patients
    for nodule, patient in zip(
      test.info['nodule_id'], test.info['patient_id'], strict=True
    )
  )
  if num_seen:
    raise errors.InputError(
      f'config.start_from={config.start_from} has seen {num_seen} of the'
      f" {len(test)} nodules of this run's test split, or other nodules of"
      ' their patients. Start from a model with the same folds.'
    )
