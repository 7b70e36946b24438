"""Bundles record the nodules that their runs have seen."""

import functools
import json
import shutil

import made_run
import pytest

import mtnet_jax
from mtnet_jax.data import lidc
from mtnet_jax.inference import bundles
from mtnet_jax.inference import card
from mtnet_jax.inference import packing
from mtnet_jax.inference import seen_by
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import shipped
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors
from tfds_lidc.nodules import selection


def _with_lists(runs, tmp_path, *lists):
  """Copies runs, each with a list of (nodule_id, patient_id, used_for)."""
  copies = [shutil.copytree(x, tmp_path / x.name) for x in runs]
  for copy, rows in zip(copies, lists, strict=True):
    if rows is not None:
      seen_lib.write(copy / seen_lib.FILE, seen_lib.Seen(frozenset(rows)))
  return copies


# Patient LIDC-IDRI-0000 has the records nodule-0 and nodule-1, and so on.
_UNKNOWN = ('a', 'LIDC-IDRI-9000', 'train')
_TRAINED = ('b', 'LIDC-IDRI-0001', 'train')
_CHOSEN = ('c', 'LIDC-IDRI-0001', 'validation')
_SAME = ('nodule-2', 'LIDC-IDRI-0001', 'train')


@pytest.mark.parametrize(
  ('lists', 'count'),
  [
    (([_UNKNOWN], [_UNKNOWN, _TRAINED]), 2),
    (([_UNKNOWN], [_CHOSEN]), 2),
    # The first run itself has this patient in two splits, but not this nodule.
    (([_TRAINED], [_SAME]), 1),
    (([_SAME], [_UNKNOWN]), 1),
    ((None, [_TRAINED]), 2),
  ],
)
def test_results_of_nodules_in_a_list_are_refused(runs, tmp_path, lists, count):
  listed = _with_lists(runs, tmp_path, *lists)
  with pytest.raises(
    errors.InputError,
    match=f'results of {count} nodules of patients that .* has seen',
  ):
    packing.write(listed, tmp_path / 'out', symmetries=True)


def test_validation_nodules_may_be_used_in_selection_only(runs, tmp_path):
  """A temperature is fitted to them, so they must not be training nodules."""
  folders = _with_lists(runs, tmp_path, [_UNKNOWN], [_UNKNOWN])
  (test,) = (folders[0] / 'evaluations').glob('*-test-*')
  rows = [
    {**row, 'nodule_id': f't{i}', 'patient_id': f'T{i}'}
    for i, row in enumerate(made_run.records())
  ]
  files.write_csv(test / 'records.csv', rows)
  pack = functools.partial(
    packing.write, folders, symmetries=True, calibrate=True
  )

  def write(row):
    seen = seen_lib.Seen(frozenset({_UNKNOWN, row}))
    seen_lib.write(folders[1] / seen_lib.FILE, seen)

  write(_CHOSEN)
  pack(tmp_path / 'chosen')
  write(_TRAINED)
  with pytest.raises(
    errors.InputError, match='-validation-.* 2 nodules of patients that'
  ):
    pack(tmp_path / 'trained')


def test_an_average_has_seen_what_its_runs_have(runs, tmp_path):
  other = ('d', 'LIDC-IDRI-9001', 'validation')
  listed = _with_lists(runs, tmp_path, [_UNKNOWN], [_UNKNOWN, other])
  packing.write(listed, tmp_path / 'out', symmetries=True)
  expected = seen_lib.Seen(frozenset({_UNKNOWN, other}))
  model = mtnet_jax.load(tmp_path / 'out')
  assert model.seen == seen_by.model(model) == expected
  card = ' '.join((tmp_path / 'out' / 'README.md').read_text().split())
  assert '1 nodules of 1 patients in training, and 1 nodules of' in card


def test_a_run_without_a_list_joins_by_its_folds(runs, averaged, tmp_path):
  listed = _with_lists(runs, tmp_path, [_UNKNOWN], None)
  packing.write(listed, tmp_path / 'out', symmetries=True)
  model = mtnet_jax.load(tmp_path / 'out')
  by_fold = frozenset(lidc.seen_by_fold('lidc_nodules/phantom'))
  assert model.seen.rows == by_fold | {_UNKNOWN}
  # If no run has a list, the bundle has none, and the folds decide.
  model = mtnet_jax.load(averaged)
  assert not (averaged / seen_lib.FILE).exists() and model.seen is None
  assert seen_by.model(model) == seen_lib.Seen(by_fold, by_fold=True)


def test_results_are_found_under_a_longer_name(runs, tmp_path):
  """The plain name has results of other runs; two matching folders are refused.

  An evaluation gets a longer name if its plain one is taken.
  """
  folders = [shutil.copytree(x, tmp_path / x.name) for x in runs]
  (plain,) = (folders[0] / 'evaluations').glob('*-test-*')
  described = json.loads((plain / 'metrics.json').read_text())
  for member, folder in zip(described['members'], folders, strict=True):
    member['id'] = workdir.run_id(folder)
  longer = shutil.copytree(plain, plain.with_name(f'{plain.name}-01234567'))
  files.write_json(longer / 'metrics.json', described)
  with pytest.raises(errors.InputError, match='delete all but one'):
    packing.write(folders, tmp_path / 'out', symmetries=True)
  described['members'][1]['id'] = 'of another run'
  files.write_json(plain / 'metrics.json', described)
  packing.write(folders, tmp_path / 'out', symmetries=True)
  files.write_json(longer / 'metrics.json', described)
  with pytest.raises(errors.InputError, match='results of other runs'):
    packing.write(folders, tmp_path / 'again', symmetries=True)


def _listed(made_run_dir, folder, rows=(_UNKNOWN, _CHOSEN)):
  run = shutil.copytree(made_run_dir, folder)
  seen_lib.write(run / seen_lib.FILE, seen_lib.Seen(frozenset(rows)))
  return run


def test_a_bundle_keeps_the_list_of_its_run(made_run_dir, tmp_path):
  run = _listed(made_run_dir, tmp_path / 'made')
  packing.write(run, tmp_path / 'out')
  left, right = mtnet_jax.load(run), mtnet_jax.load(tmp_path / 'out')
  assert (
    left.seen == right.seen == seen_lib.Seen(frozenset({_UNKNOWN, _CHOSEN}))
  )
  assert left.card == right.card
  path = tmp_path / 'out' / seen_lib.FILE
  assert path.read_bytes() == (run / seen_lib.FILE).read_bytes()
  # A bundle of the bundle keeps it, too.
  packing.write(tmp_path / 'out', tmp_path / 'again', name='made')
  assert (tmp_path / 'again' / seen_lib.FILE).read_bytes() == path.read_bytes()
  assert bundles.WANTED.fullmatch(seen_lib.FILE)


def _update_checksum(folder):
  """Enters the new checksum of seen.csv into the manifest."""
  manifest = json.loads((folder / 'manifest.json').read_text())
  manifest['files'][seen_lib.FILE] = bundle_files.file_digest(
    folder / seen_lib.FILE
  )
  (folder / 'manifest.json').write_text(json.dumps(manifest))


def test_a_changed_list_of_a_bundle_is_refused(made_run_dir, tmp_path):
  out = tmp_path / 'out'
  packing.write(_listed(made_run_dir, tmp_path / 'run'), out)
  path = out / seen_lib.FILE
  text = path.read_text()
  path.write_text(text.replace('train', 'validation'))
  with pytest.raises(errors.InputError, match='seen.csv is damaged or was'):
    mtnet_jax.load(out)
  # A list with a wrong value, and its checksum.
  path.write_text(text.replace('train', 'tested'))
  _update_checksum(out)
  with pytest.raises(errors.InputError, match='seen.csv is damaged: row 2'):
    mtnet_jax.load(out)
  path.unlink()
  with pytest.raises(errors.InputError, match='seen.csv cannot be read'):
    mtnet_jax.load(out)


def test_a_list_that_is_not_in_the_manifest_is_not_read(packed, tmp_path):
  """Bundles of earlier versions have no list; this one has no checksum."""
  copy = shutil.copytree(packed, tmp_path / 'copy')
  (copy / seen_lib.FILE).write_text('nonsense')
  assert mtnet_jax.load(copy).seen is None


def test_an_ensemble_has_seen_what_any_member_has(made_run_dir, tmp_path):
  paths = [
    _listed(made_run_dir, tmp_path / use, [row])
    for use, row in (('a', _CHOSEN), ('b', _TRAINED))
  ]
  both = mtnet_jax.load(paths)
  assert both.seen.rows == {_CHOSEN, _TRAINED}
  assert seen_by.model(both) == both.seen
  mixed = mtnet_jax.load([paths[0], made_run_dir])
  assert mixed.seen is None
  by_fold = lidc.seen_by_fold('lidc_nodules/phantom')
  assert seen_by.model(mixed) == seen_lib.Seen(
    frozenset({_CHOSEN, *by_fold}), by_fold=True
  )


def test_the_shipped_model_lists_what_it_has_seen():
  """It trained on folds 0 to 2 of `paper`, and fold 3 selected the epochs."""
  bundle = bundle_files.read(shipped.folder_of('lidc-small'))
  paper = selection.select(selection.POLICIES['paper'])
  assert bundle.seen == seen_lib.Seen(
    frozenset(
      (n.nodule_id, n.patient_id, n.split) for n in paper if n.fold != 4
    )
  )
  uses = list(seen_lib.nodules(bundle.seen).values())
  assert (uses.count('train'), uses.count('validation')) == (854, 284)
  # Only some of them have CT.
  cohort = bundle.metrics['cohort']
  assert cohort['train']['nodules'] == 373
  assert cohort['validation']['nodules'] == 135
  assert bundle.card == card.model_card(
    bundle.name, bundle.config, bundle.metrics, bundle.seen
  )
