"""Keeps which nodules a run was trained on and chosen by, before it trains."""

import pathlib

from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.models import nets
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors


def gather(config, workdir, splits, *, say=print):
  """What a run will have seen, and what it starts from had.

  Args:
    config: of `from_run.fill_in`.
    workdir: the run directory, which need not be this config's.
    splits: split name -> `nodules.Nodules`, of this config's dataset.
    say: prints a line.

  Returns:
    A `seen.Seen`. Where there is a list in the run directory, this run's own
    nodules alone: the model that it started from may be gone since.

  Raises:
    errors.InputError: the model that the run starts from has seen what the run
      would test itself on.
  """
  own = seen_lib.Seen(frozenset(nodules.used_for(splits)))
  if not config.start_from or pathlib.Path(workdir, seen_lib.FILE).exists():
    return own
  before = _of_source(config, say)
  _check_test(config, splits['test'], own, before)
  return seen_lib.union([own, before])


def write(workdir, seen):
  """Writes seen.csv, unless it is there.

  Args:
    workdir: the run directory.
    seen: of `gather`.

  Raises:
    errors.InputError: the file that is there lacks nodules of this run.
  """
  path = pathlib.Path(workdir, seen_lib.FILE)
  if not path.exists():
    seen_lib.write(path, seen)
  elif not seen.rows <= seen_lib.read(path).rows:
    raise errors.InputError(
      f'{path} lacks nodules that this run is trained on or chosen by: it is of'
      ' another run. Choose another --workdir.'
    )


def _of_source(config, say):
  try:
    found = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    ).seen
  except errors.InputError:
    # A run resumes without the model that it began with.
    found = None
  if found is None:
    say(
      f'{config.start_from} keeps no list of the nodules that it has seen: it'
      ' is taken to have seen all of LIDC-IDRI but its test fold.'
    )
    # `from_run` has checked that its folds are this run's.
    rows = lidc.seen_by_fold(
      config.start_from_dataset, config.dataset.rotate_folds
    )
    found = seen_lib.Seen(frozenset(rows), by_fold=True)
  return found


def _check_test(config, test, own, before):
  """Raises where the source has seen test nodules, if it kept a list.

  Patients whom this run itself divides between its splits do not count.
  """
  if before.by_fold:
    return
  known = seen_lib.nodules(before)
  patients = seen_lib.patients(before).keys() - seen_lib.patients(own).keys()
  count = sum(
    str(nodule) in known or str(patient) in patients
    for nodule, patient in zip(
      test.info['nodule_id'], test.info['patient_id'], strict=True
    )
  )
  if count:
    raise errors.InputError(
      f'config.start_from={config.start_from} has seen {count} of the'
      f' {len(test)} nodules that this run would test itself on, or others of'
      ' their patients. Start from a model of the same folds.'
    )
