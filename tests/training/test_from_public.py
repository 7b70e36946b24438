"""A run starts from public weights."""

import dataclasses
import hashlib
import json
import shutil

from flax import traverse_util
import main_job
import numpy as np
import pytest
import weights_made_up

from configs import mtnet as mtnet_config
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.training import from_public
from mtnet_jax.training import stages
from mtnet_jax.training import start

_NAMES = {'segmentation': 'torch_deeplab', 'classification': 'keras_xception'}


def config(**paths):
  """The config of `main_job.small_job`, with weights to start from."""
  tree = mtnet_config.get_config('test')
  with tree.unlocked():
    tree.update(main_job.SMALL)
    for task, path in paths.items():
      tree.pretrained[task] = str(path)
  return tree


@pytest.fixture(scope='module', name='files')
def _files(tmp_path_factory):
  """Task -> a weights file that fits `config`."""
  directory = tmp_path_factory.mktemp('weights')
  nets = nets_lib.make_nets(config())
  return {
    task: weights_made_up.write(
      name,
      directory,
      weights_made_up.tensors(
        name, nets['coarse' if task == 'segmentation' else 'class']
      )[0],
    )
    for task, name in _NAMES.items()
  }


def test_without_weights_nothing_changes(tmp_path):
  plain = config()
  assert from_public.fill_in(plain, tmp_path) == plain
  for stage in stages.make_stages(plain):
    assert from_public.loader(plain, stage) is None


def test_files_below_home(files, tmp_path, monkeypatch):
  path = files['segmentation']
  monkeypatch.setenv('HOME', str(path.parent))
  requested = config(segmentation=f'~/{path.name}')
  resolved = from_public.fill_in(requested, tmp_path)
  # The path stays as the user wrote it, see `configs.differences`.
  assert resolved.pretrained.segmentation == requested.pretrained.segmentation
  assert resolved.pretrained.segmentation_sha256 == (
    hashlib.sha256(path.read_bytes()).hexdigest()
  )
  coarse, *_ = stages.make_stages(resolved)
  assert from_public.loader(resolved, coarse)().variables['params']


def test_fields_of_the_files_go_into_the_config(files, tmp_path):
  requested = config(**files)
  resolved = from_public.fill_in(requested, tmp_path)
  # The argument is unchanged.
  assert 'bn_epsilon' not in requested.seg_net
  assert resolved.pretrained.segmentation_sha256 == (
    hashlib.sha256(files['segmentation'].read_bytes()).hexdigest()
  )
  for source in (resolved, _saved(resolved, tmp_path / 'run')):
    nets = nets_lib.make_nets(source)
    for name in ('coarse', 'fine'):
      net = nets[name]
      assert (net.bn_epsilon, net.skip_relu, net.tail_dilation) == (
        1e-5,
        True,
        1,
      )
      assert (net.input_mean, net.input_std) == ((-1.0,), (2.0,))
      hash(net)
    assert nets['class'].bn_epsilon == 1e-3
    assert nets['class'].pool_padding == 'same'
    assert nets['class'].tail_dilation == 2


def _saved(tree, path):
  """The config of a run directory, as evaluation reads it without the files."""
  workdir_lib.claim(path, tree)
  return workdir_lib.read_config(path)


def test_fields_that_contradict_the_weights_are_refused(files, tmp_path):
  requested = config(**files)
  with requested.unlocked():
    requested.class_net.bn_epsilon = 1e-5
  with pytest.raises(errors.InputError, match='class_net.bn_epsilon=1e-05'):
    from_public.fill_in(requested, tmp_path)
  with requested.unlocked():
    requested.class_net.bn_epsilon = 1e-3
  from_public.fill_in(requested, tmp_path)


@pytest.mark.parametrize('task', _NAMES)
def test_weights_for_the_other_task_are_refused(files, tmp_path, task):
  (other,) = set(_NAMES) - {task}
  with pytest.raises(errors.InputError, match=f'for {other}'):
    from_public.fill_in(config(**{task: files[other]}), tmp_path)


def test_weights_of_another_size_are_refused(files, tmp_path):
  requested = config(**files)
  with requested.unlocked():
    requested.seg_net.entry_widths = (8, 16, 24)
  with pytest.raises(errors.InputError, match='shapes differ'):
    from_public.fill_in(requested, tmp_path)


def test_a_run_resumes_without_its_files_but_not_with_others(files, tmp_path):
  moved = {
    task: tmp_path / path.name
    for task, path in files.items()
    if shutil.copy(path, tmp_path)
  }
  resolved = from_public.fill_in(config(**moved), tmp_path / 'run')
  workdir_lib.claim(tmp_path / 'run', resolved)
  moved['segmentation'].unlink()
  again = from_public.fill_in(config(**moved), tmp_path / 'run')
  assert again == resolved
  workdir_lib.claim(tmp_path / 'run', again)
  # Another run needs the files.
  with pytest.raises(errors.InputError, match='missing'):
    from_public.fill_in(config(**moved), tmp_path / 'other')
  # A file with other values makes it another run.
  net = nets_lib.make_nets(config())['coarse']
  arrays, _ = weights_made_up.tensors('torch_deeplab', net, seed=1)
  weights_made_up.write('torch_deeplab', tmp_path, arrays)
  changed = from_public.fill_in(config(**moved), tmp_path / 'run')
  with pytest.raises(errors.InputError, match='segmentation_sha256 was'):
    workdir_lib.claim(tmp_path / 'run', changed)
  # The file may also change between the start of the run and its stage.
  stage = stages.make_stages(resolved)[0]
  with pytest.raises(errors.InputError, match='not the file that this run'):
    from_public.loader(resolved, stage)()


def test_class_net_starts_from_its_file(files, tmp_path):
  resolved = from_public.fill_in(config(**files), tmp_path)
  stage = stages.make_stages(resolved)[1]
  stage = dataclasses.replace(stage, net=stage.net.clone(axis_name=None))
  weights = from_public.loader(resolved, stage)()
  assert weights.title == 'Keras Xception'
  variables = start.init_variables(
    stage,
    0,
    size=64,
    started=weights.variables,
    newly_initialised=weights.newly_initialised,
  )
  ours = traverse_util.flatten_dict(variables, sep='/')
  loaded = traverse_util.flatten_dict(weights.variables, sep='/')
  assert ours.keys() - loaded.keys() == {
    'params/classifier/kernel',
    'params/bias',
  }
  for path, value in loaded.items():
    np.testing.assert_array_equal(ours[path], value, err_msg=path)
  assert float(np.std(ours['params/classifier/kernel'])) > 0


@pytest.mark.slow
def test_main_trains_a_stage_from_public_weights(
  files, tmp_path, phantom_data_dir, compiled
):
  """One stage without interruption; the long test below has all stages."""
  job = main_job.small_job(
    tmp_path / 'run',
    phantom_data_dir,
    f'--config.pretrained.segmentation={files["segmentation"]}',
    "--config.stages=('coarse',)",
  )
  done = main_job.run(job, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert "Stage 'coarse' starts from" in done.stdout
  saved = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert saved['seg_net']['skip_relu'] is True
  assert (tmp_path / 'run' / 'metrics.json').exists()


@pytest.mark.long
def test_main_from_public_weights(files, tmp_path, phantom_data_dir, compiled):
  paths = {
    task: shutil.copy(path, tmp_path / path.name)
    for task, path in files.items()
  }
  flags = [f'--config.pretrained.{task}={path}' for task, path in paths.items()]
  workdir = tmp_path / 'run'
  job = main_job.small_job(workdir, phantom_data_dir, *flags)
  done = main_job.run(job, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert "Stage 'coarse' starts from" in done.stdout
  assert "Stage 'class' starts from" in done.stdout
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['seg_net']['skip_relu'] is True
  metrics = (workdir / 'metrics.json').read_text()

  # Stopped in its last stage, it resumes without the files to the same result.
  (workdir / 'metrics.json').unlink()
  shutil.rmtree(workdir / 'checkpoints' / 'fine')
  for path in paths.values():
    path.unlink()
  done = main_job.run(job, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'starts from' not in done.stdout
  assert (workdir / 'metrics.json').read_text() == metrics

  done = main_job.run(
    main_job.module('mtnet_jax.evaluate', f'--workdir={workdir}'), **compiled
  )
  assert done.returncode == 0, done.stderr[-3000:]

  # Before the first checkpoint the files are needed.
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / 'metrics.json').unlink()
  done = main_job.run(job, **compiled)
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert str(paths['segmentation']) in line and 'missing' in line
