"""A damaged checkpoint is never loaded as if it were intact."""

import json
import resource
import shutil
import subprocess
import sys

import main_job
import numpy as np
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import orbax_errors
from mtnet_jax.system import errors

_FIXTURES = main_job.ROOT / 'tests' / 'fixtures'


def _tree(step):
  rng = np.random.default_rng(step)
  kernel = rng.normal(size=(64, 64)).astype(np.float32)
  return {'step': np.int32(step), 'params': {'kernel': kernel}}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A directory with checkpoints of steps 4 and 8; tests do not change it."""
  directory = tmp_path_factory.mktemp('stage')
  checkpoints = checkpoint.Checkpoints(directory)
  for step in (4, 8):
    checkpoints.save_latest(step, _tree(step), {'history': [step]})
  checkpoints.save_best(8, _tree(8), {'epoch': 2})
  return directory


@pytest.fixture
def stage(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / 'stage')


def _files(directory):
  return sorted(path for path in directory.rglob('*') if path.is_file())


def _flip(path, position):
  data = bytearray(path.read_bytes())
  data[int(position * len(data))] ^= 1 << int(position * 1000) % 8
  path.write_bytes(data)


def _truncate(path, position):
  path.write_bytes(path.read_bytes()[: int(position * path.stat().st_size)])


def _delete(path, _):
  path.unlink()


def _assert_is(tree, step):
  assert tree['step'] == step
  np.testing.assert_array_equal(
    tree['params']['kernel'], _tree(step)['params']['kernel']
  )


@pytest.mark.parametrize(
  'damage, draws', [(_flip, 40), (_truncate, 20), (_delete, 10)]
)
def test_damage_falls_back_to_the_checkpoint_before(
  saved, tmp_path, damage, draws
):
  rng = np.random.default_rng(0)
  num_fallbacks = 0
  for number in range(draws):
    stage = shutil.copytree(saved, tmp_path / str(number))
    files = _files(stage / 'latest' / '8')
    # Weighted by size, since most bits that flip are in arrays.
    sizes = np.asarray([path.stat().st_size for path in files], float)
    path = files[rng.choice(len(files), p=sizes / sizes.sum())]
    damage(path, rng.uniform())
    tree, meta = checkpoint.Checkpoints(stage).load_latest(None)
    # Damage to some files has no effect.
    step = int(tree['step'])
    assert step in (4, 8), path
    _assert_is(tree, step)
    assert meta['history'] == [step]
    num_fallbacks += step == 4
  assert num_fallbacks > draws / 2


def test_a_damaged_checkpoint_is_moved_aside_and_saved_again(stage, capsys):
  for path in _files(stage / 'latest' / '8' / 'state'):
    path.unlink()
  checkpoints = checkpoint.Checkpoints(stage)
  _assert_is(checkpoints.load_latest(None)[0], 4)
  assert (stage / 'damaged' / '8' / 'meta').exists()
  warning = capsys.readouterr().err
  assert warning.startswith('warning: ') and warning.count('\n') == 1
  assert f'{stage}/latest/8 is damaged' in warning
  assert f'{stage}/damaged/8' in warning
  # The run reaches step 8 again.
  checkpoints.save_latest(8, _tree(8), {'history': [8]})
  _assert_is(checkpoint.Checkpoints(stage).load_latest(None)[0], 8)


def test_arrays_of_another_checkpoint_are_damage(stage, capsys):
  # Everything can be read, but the arrays are not those of step 8.
  shutil.rmtree(stage / 'latest' / '8' / 'state')
  shutil.copytree(
    stage / 'latest' / '4' / 'state', stage / 'latest' / '8' / 'state'
  )
  tree, meta = checkpoint.Checkpoints(stage).load_latest(None)
  _assert_is(tree, 4)
  assert meta['history'] == [4]
  assert 'its arrays are not those that were saved' in capsys.readouterr().err


def test_a_stage_of_damaged_checkpoints_is_refused(stage, capsys):
  for step in (4, 8):
    shutil.rmtree(stage / 'latest' / str(step) / 'meta')
  with pytest.raises(errors.InputError, match=f'delete {stage} to train the'):
    checkpoint.Checkpoints(stage).load_latest(None)
  assert capsys.readouterr().err.count('warning') == 2


@pytest.mark.parametrize(
  'load',
  [
    lambda stage: checkpoint.Checkpoints(stage).load_best(),
    checkpoint.load_best,
  ],
)
def test_a_damaged_best_is_refused_and_stays(stage, load):
  files = _files(stage / 'best')
  for path in _files(stage / 'best' / '8' / 'state'):
    _truncate(path, 0.5)
  with pytest.raises(errors.InputError, match=f'{stage}/best/8 is damaged'):
    load(stage)
  assert _files(stage / 'best') == files


def test_a_newer_format_is_refused_and_nothing_is_moved(stage):
  path = stage / 'latest' / '8' / 'meta' / 'metadata'
  meta = json.loads(path.read_text())
  path.write_text(json.dumps({**meta, 'format': checkpoint.FORMAT + 1}))
  # A newer format may store its arrays in any way.
  shutil.rmtree(stage / 'latest' / '8' / 'state')
  with pytest.raises(errors.InputError, match='use the version of mtnet_jax'):
    checkpoint.Checkpoints(stage).load_latest(None)
  assert path.exists()


@pytest.mark.parametrize('number', range(1, checkpoint.FORMAT + 1))
def test_checkpoints_of_every_format_load(number, tmp_path):
  directory = tmp_path / 'stage'
  shutil.copytree(_FIXTURES / f'checkpoint_format_{number}', directory)
  checkpoints = checkpoint.Checkpoints(directory)
  state, meta = checkpoints.load_latest(None)
  # The values that were saved when the fixtures were made.
  kernel = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
  mean = np.array([-0.0, 1e-45, np.inf], np.float32)
  assert state['step'] == 4
  assert state['loss_sum'] == np.float32(0.1)
  assert meta['format'] == number
  assert meta['history'] == [
    {'epoch': 1, 'loss': 0.30000000000000004, 'best': True}
  ]
  variables, meta = checkpoints.load_best()
  assert meta['epoch'] == 1
  for tree in (state, variables):
    assert tree['params']['conv']['kernel'].tobytes() == kernel.tobytes()
    assert tree['batch_stats']['norm']['mean'].tobytes() == mean.tobytes()


def test_an_epoch_row_that_was_missing_is_added(stage):
  checkpoints = checkpoint.Checkpoints(stage)
  checkpoints.save_latest(8, _tree(8), {'history': [8, 'row']})
  tree, meta = checkpoint.Checkpoints(stage).load_latest(None)
  _assert_is(tree, 8)
  assert meta['history'] == [8, 'row']


def test_a_full_disk_leaves_the_checkpoint_before(stage, caplog):
  checkpoints = checkpoint.Checkpoints(stage)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # A write beyond the limit fails as on a full disk, with another errno.
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
  try:
    with pytest.raises(errors.InputError) as error:
      checkpoints.save_latest(9, _tree(9), {'history': []})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert str(error.value) == (
    f'{stage}/latest/9 cannot be written: File too large. The checkpoint before'
    ' it is kept, and the same command continues from there.'
  )
  # There is one message, and Orbax printed none.
  assert not caplog.records
  _assert_is(checkpoint.Checkpoints(stage).load_latest(None)[0], 8)
  checkpoints.save_latest(9, _tree(9), {'history': [9]})
  _assert_is(checkpoint.Checkpoints(stage).load_latest(None)[0], 9)


@pytest.mark.parametrize(
  'details',
  (
    "[os_error_code='27']",
    "[os_error_code='27'] [spec='{\"a\": true}']",
    "[spec='{\"a\": true}'] [os_error_code='27']",
  ),
)
def test_the_reason_is_the_operating_systems_message(details):
  error = ValueError(
    f'OUT_OF_RANGE: Failed to write 9 bytes: File too large {details}'
  )
  assert orbax_errors.reason(error) == 'File too large'
  # For other errors it is the first line.
  assert orbax_errors.reason(ValueError('No such: thing\nat all')) == (
    orbax_errors.first_line(ValueError('No such: thing'))
  )


def test_late_writes_print_nothing_after_an_error(tmp_path):
  # Orbax gives up at the first error, while threads write the other arrays.
  code = f"""
import resource
import time
import numpy as np
from mtnet_jax.storage import checkpoint
from mtnet_jax.system import errors

checkpoints = checkpoint.Checkpoints({str(tmp_path)!r})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
rng = np.random.default_rng(0)
state = {{str(i): rng.normal(size=(100, 100)) for i in range(200)}}
for step in range(3):
  try:
    checkpoints.save_latest(step, state, {{}})
  except errors.InputError as error:
    print(error)
  time.sleep(0.5)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=main_job.environment(),
    capture_output=True,
    text=True,
  )
  assert done.stdout.count('cannot be written') == 3, done.stderr[-2000:]
  assert 'loop is closed' not in done.stderr
