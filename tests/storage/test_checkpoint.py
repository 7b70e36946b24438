"""Saved states are restored bit for bit, also after a crash."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.training import optim


@struct.dataclass
class _State:
  step: Any
  params: Any
  opt_state: Any


def _state(seed, *, schedule='cosine'):
  """Returns a state whose values all depend on the seed."""
  rng = np.random.default_rng(seed)
  params = {
    'conv': {'kernel': rng.normal(size=(2, 3)).astype(np.float32)},
    'bias': np.float32(rng.normal()),
  }
  tx = optim.make_optimizer(
    learning_rate=1e-3, schedule=schedule, total_steps=40
  )
  opt_state = tx.init(params)
  grads = jax.tree.map(lambda x: x * 0.1 + seed, params)
  _, opt_state = tx.update(grads, opt_state, params)
  return _State(np.int32(seed), params, jax.device_get(opt_state))


def _assert_identical(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


def _steps(directory):
  return sorted(int(path.name) for path in directory.iterdir())


@pytest.mark.parametrize('schedule', ('constant', 'cosine'))
def test_state_round_trip_is_exact(tmp_path, schedule):
  state = _state(7, schedule=schedule)
  history = [{'epoch': 1, 'loss': 0.1 + 0.2, 'best': True}]
  checkpoint.Checkpoints(tmp_path).save_latest(7, state, {'history': history})
  # Another process, with a newly initialised state.
  restored, meta = checkpoint.Checkpoints(tmp_path).load_latest(
    _state(0, schedule=schedule)
  )
  _assert_identical(restored, state)
  assert isinstance(restored.opt_state[0], optax.ScaleByAdamState)
  assert meta['history'] == history
  assert meta['format'] == checkpoint.FORMAT


def test_unusual_values_survive(tmp_path):
  tree = {
    'short': jnp.asarray([1.5, -0.0, np.inf], jnp.bfloat16),
    'tiny': np.array([1e-45, -0.0, np.nan], np.float32),
    'scalar': np.float32(3),
    'count': np.int32(2**31 - 1),
  }
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save_best(1, {'params': tree, 'batch_stats': {}}, {'epoch': 1})
  variables, meta = checkpoints.load_best()
  _assert_identical(variables['params'], jax.device_get(tree))
  assert meta['epoch'] == 1


def test_nothing_saved_is_none(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.load_latest(_state(0)) is None
  assert checkpoints.load_best() is None


def test_latest_keeps_two_steps_and_best_keeps_their_best(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  history = []
  for step in (1, 2, 3, 10):
    checkpoints.save_best(step, {'params': {'x': np.ones(step)}}, {})
    history.append({'step': step, 'best': True})
    checkpoints.save_latest(step, _state(step), {'history': history})
  assert _steps(tmp_path / 'latest') == [3, 10]
  assert _steps(tmp_path / 'best') == [3, 10]
  restored, _ = checkpoint.Checkpoints(tmp_path).load_latest(_state(0))
  _assert_identical(restored, _state(10))
  variables, _ = checkpoints.load_best()
  assert variables['params']['x'].shape == (10,)


def test_the_same_step_may_be_saved_again(tmp_path):
  # A run that is killed between its two saves reaches the same step again.
  for _ in range(2):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for _ in range(2):
      checkpoints.save_best(4, {'params': {'x': np.ones(3)}}, {'epoch': 1})
      checkpoints.save_latest(4, _state(4), {'history': []})
  restored, _ = checkpoints.load_latest(_state(0))
  _assert_identical(restored, _state(4))
  assert _steps(tmp_path / 'latest') == _steps(tmp_path / 'best') == [4]


def test_an_interrupted_save_does_not_count(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save_latest(4, _state(4), {})
  half = tmp_path / 'latest' / '5.orbax-checkpoint-tmp' / 'state'
  half.mkdir(parents=True)
  (half / 'manifest.ocdbt').write_bytes(b'half')
  checkpoints = checkpoint.Checkpoints(tmp_path)
  restored, _ = checkpoints.load_latest(_state(0))
  _assert_identical(restored, _state(4))
  # The step can still be saved.
  checkpoints.save_latest(5, _state(5), {})
  restored, _ = checkpoints.load_latest(_state(0))
  _assert_identical(restored, _state(5))


def test_another_structure_is_refused(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save_latest(1, _state(1), {})
  other = _state(1)
  other.params['new'] = np.zeros(1)
  with pytest.raises(ValueError, match='new'):
    checkpoints.load_latest(other)


def test_a_relative_directory_is_accepted(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  checkpoint.Checkpoints('run/coarse').save_latest(1, _state(1), {})
  assert _steps(tmp_path / 'run' / 'coarse' / 'latest') == [1]
