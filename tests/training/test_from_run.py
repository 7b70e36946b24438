"""A run starts from another run, from a bundle, or from a shipped model."""

import json
import re
import shutil

import jax
import made_run
import main_job
import numpy as np
import pytest
import step_job

from mtnet_jax.inference import packing
from mtnet_jax.models import nets
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import shipped
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.training import from_run
from mtnet_jax.training import progress
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import trainer as trainer_lib


def config(source, **changes):
  """A config of the networks of `made_run`, which start from a model."""
  tree = made_run.config_of()
  with tree.unlocked():
    tree.start_from = str(source)
    tree.update_from_flattened_dict(changes)
  return tree


def _initial_variables(resolved):
  """Returns stage name -> the variables before its first step."""
  found = {}
  for stage in stages.make_stages(resolved):
    started = from_run.loader(resolved, stage, say=lambda _: None)()
    assert started.newly_initialised == ()
    found[stage.name] = start.init_variables(
      stage,
      seed=1,
      size=resolved.image_size,
      started=started.variables,
      newly_initialised=started.newly_initialised,
    )
  return found


def _assert_same(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_without_a_source_nothing_changes(tmp_path):
  plain = config('')
  assert from_run.fill_in(plain, tmp_path) == plain
  assert from_run.loader(plain, stages.make_stages(plain)[0]) is None


def test_every_stage_starts_from_the_same_stage(made_run_dir, tmp_path):
  requested = config(made_run_dir)
  resolved = from_run.fill_in(requested, tmp_path)
  assert requested.start_from_sha256 == ''  # The argument is unchanged.
  assert re.fullmatch('[0-9a-f]{64}', resolved.start_from_sha256)
  assert resolved.start_from_dataset == 'lidc_nodules/phantom'
  expected = workdir_lib.load_variables(
    made_run_dir, ('coarse', 'class', 'fine')
  )
  _assert_same(_initial_variables(resolved), expected)


def test_a_bundle_gives_the_same_start_as_its_run(made_run_dir, tmp_path):
  packing.write(made_run_dir, tmp_path / 'bundle')
  from_bundle = from_run.fill_in(config(tmp_path / 'bundle'), tmp_path)
  from_a_run = from_run.fill_in(config(made_run_dir), tmp_path)
  assert from_bundle.start_from_sha256 == from_a_run.start_from_sha256
  _assert_same(_initial_variables(from_bundle), _initial_variables(from_a_run))


def test_a_shipped_model_is_found_by_its_name(
  made_run_dir, tmp_path, monkeypatch
):
  monkeypatch.setattr(shipped, '_FOLDER', tmp_path)
  packing.write(made_run_dir, tmp_path / 'tiny')
  resolved = from_run.fill_in(config('tiny'), tmp_path)
  _assert_same(
    _initial_variables(resolved),
    _initial_variables(from_run.fill_in(config(made_run_dir), '.')),
  )


def test_an_unknown_model_is_refused_with_the_known_names(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(shipped, '_FOLDER', tmp_path)
  (tmp_path / 'tiny').mkdir()
  (tmp_path / 'tiny' / 'manifest.json').touch()
  with pytest.raises(errors.InputError, match=r'tony does not exist.*\(tiny\)'):
    from_run.fill_in(config('tony'), tmp_path)


@pytest.mark.parametrize(
  ('changes', 'reason'),
  [
    ({'seg_net.aspp_features': 5}, 'coarse/.*shape'),
    ({'class_net.exit_width': 7}, 'class/.*shape'),
    ({'class_net.middle_blocks': 1}, 'class/.*two trees only.*block3'),
  ],
)
def test_other_networks_are_refused(made_run_dir, tmp_path, changes, reason):
  requested = config(made_run_dir, **changes)
  with pytest.raises(errors.InputError, match=f'other networks.*{reason}'):
    from_run.fill_in(requested, tmp_path)


def test_variables_that_the_source_lacks_are_newly_initialised(
  made_run_dir, tmp_path
):
  """The serial strategy's fine network has no fine layer."""
  serial = made_run.write(tmp_path / 'serial', _serial())
  resolved = from_run.fill_in(config(serial, stages=('coarse', 'fine')), '.')
  coarse, fine = stages.make_stages(resolved)
  # The source has no coarse stage, so this one starts from random values.
  assert from_run.loader(resolved, coarse) is None
  lines = []
  started = from_run.loader(resolved, fine, say=lines.append)()
  assert started.newly_initialised == ('fine_layer',)
  assert lines == [
    f"Stage 'fine' starts from {serial}; newly initialised: fine_layer."
  ]


def _serial():
  tree = made_run.config_of()
  with tree.unlocked():
    tree.strategy = 'serial'
  return tree


def test_no_stage_in_common_is_refused(made_run_dir, tmp_path):
  requested = config(made_run_dir, strategy='shared')
  with pytest.raises(errors.InputError, match='coarse, class, fine.*joint'):
    from_run.fill_in(requested, tmp_path)


def test_a_source_together_with_public_weights_is_refused(
  made_run_dir, tmp_path
):
  requested = config(made_run_dir, **{'pretrained.segmentation': 'x.pth'})
  with pytest.raises(errors.InputError, match='leave one of them out'):
    from_run.fill_in(requested, tmp_path)


def test_a_source_with_other_folds_is_refused(made_run_dir, tmp_path):
  requested = config(made_run_dir, **{'dataset.rotate_folds': 2})
  with pytest.raises(errors.InputError, match='other folds.*rotate_folds=0'):
    from_run.fill_in(requested, tmp_path)


def test_a_source_with_a_list_may_have_other_folds(made_run_dir, tmp_path):
  """`keep_seen` compares the nodules themselves later."""
  source = shutil.copytree(made_run_dir, tmp_path / 'source')
  seen = seen_lib.Seen(frozenset({('n', 'p', 'train')}))
  seen_lib.write(source / seen_lib.FILE, seen)
  requested = config(source, **{'dataset.rotate_folds': 2})
  assert from_run.fill_in(requested, tmp_path).start_from_sha256


def test_a_run_resumes_without_its_source(made_run_dir, tmp_path):
  source = shutil.copytree(made_run_dir, tmp_path / 'source')
  resolved = from_run.fill_in(config(source), tmp_path / 'run')
  workdir_lib.claim(tmp_path / 'run', resolved)
  shutil.rmtree(source)
  assert from_run.fill_in(config(source), tmp_path / 'run') == resolved
  with pytest.raises(errors.InputError, match='does not exist'):
    from_run.fill_in(config(source), tmp_path / 'other')
  # A stage that has not started yet needs the source.
  load = from_run.loader(resolved, stages.make_stages(resolved)[0])
  with pytest.raises(errors.InputError, match='does not exist'):
    load()


def test_a_changed_source_is_refused(made_run_dir, tmp_path):
  source = shutil.copytree(made_run_dir, tmp_path / 'source')
  resolved = from_run.fill_in(config(source), tmp_path / 'run')
  workdir_lib.claim(tmp_path / 'run', resolved)
  shutil.rmtree(source)
  made_run.write(source, seed=4)
  changed = from_run.fill_in(config(source), tmp_path / 'run')
  with pytest.raises(errors.InputError, match='start_from_sha256 was'):
    workdir_lib.claim(tmp_path / 'run', changed)
  load = from_run.loader(resolved, stages.make_stages(resolved)[0])
  with pytest.raises(
    errors.InputError, match='not the model that this run began with'
  ):
    load()


def test_a_stage_without_epochs_is_kept_as_it_is(made_run_dir, tmp_path):
  resolved = from_run.fill_in(
    config(made_run_dir, **{'coarse_stage.epochs': 0}), tmp_path
  )
  coarse, *_ = stages.make_stages(resolved)
  lines = []
  for _ in range(2):  # The second trainer resumes, and does not load again.
    trainer = trainer_lib.Trainer(
      coarse,
      resolved,
      nets=nets.make_nets(resolved),
      trained={},
      train=step_job.made_up_nodules(8),
      validation=step_job.made_up_nodules(4),
      directory=tmp_path / 'coarse',
      load_weights=from_run.loader(resolved, coarse, say=lines.append),
    )
    variables, history = trainer.run(progress.Silent())
    assert history == []
    _assert_same(
      variables, workdir_lib.load_variables(made_run_dir, ('coarse',))['coarse']
    )
    assert lines == [f"Stage 'coarse' is kept as it is in {made_run_dir}."]


def test_a_stage_without_epochs_needs_all_of_its_variables(
  made_run_dir, tmp_path
):
  serial = made_run.write(tmp_path / 'serial', _serial())
  none = {'coarse_stage.epochs': 0, 'fine_stage.epochs': 0}
  requested = config(serial, stages=('coarse', 'fine'), **none)
  resolved = from_run.fill_in(requested, '.')
  for stage in stages.make_stages(resolved):
    with pytest.raises(
      errors.InputError, match=f'{stage.name}_stage.*lacks all or some'
    ):
      from_run.loader(resolved, stage)()


@pytest.mark.slow
def test_main_starts_from_a_run(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  """With a learning rate of 0 a run ends where it starts."""
  source, _ = finished_run
  job = main_job.small_job(
    tmp_path / 'run',
    phantom_data_dir,
    f'--config.start_from={source}',
    "--config.stages=('coarse',)",
    '--config.coarse_stage.learning_rate=0.0',
    '--config.coarse_stage.epochs=1',
  )
  done = main_job.run(job, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert (
    f"Stage 'coarse' starts from {source}; newly initialised: nothing."
    in done.stdout
  )
  before, after = (
    workdir_lib.load_variables(x, ('coarse',))['coarse']['params']
    for x in (source, tmp_path / 'run')
  )
  _assert_same(before, after)
  saved = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert saved['start_from_dataset'] == 'lidc_nodules/phantom'
