"""Saving a step again leaves its old or its new version, complete."""

import os
import resource
import shutil

import numpy as np
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import step_folders
from mtnet_jax.system import errors

_HISTORY = [{'epoch': 1, 'step': 8, 'best': True}]


def _tree(value):
  # Larger than the limit in `_full_disk`, and incompressible.
  noise = np.random.default_rng(value).normal(size=(64, 64))
  return {'value': np.int32(value), 'noise': noise}


def _checkpoints(stage):
  """Checkpoints with one step that is both the latest and the best."""
  checkpoints = checkpoint.Checkpoints(stage)
  checkpoints.save_best(8, _tree(1), {})
  checkpoints.save_latest(8, _tree(1), {'history': _HISTORY})
  return checkpoints


def _save(checkpoints, which):
  if which == 'best':
    checkpoints.save_best(8, _tree(2), {'versions': 2})
  else:
    checkpoints.save_latest(
      8, _tree(2), {'history': _HISTORY, 'epoch_seconds': 2}
    )


def _read(stage, which):
  """Returns the values that a read-only reader and the next process find."""
  values = []
  if which == 'best':
    values.append(int(checkpoint.load_best(stage)[0]['value']))
    found = checkpoint.Checkpoints(stage).load_best()
  else:
    # The history names the best step even before its own step is restored.
    assert checkpoint.load_best(stage)[0]['value'] == 1
    found = checkpoint.Checkpoints(stage).load_latest(None)
  values.append(int(found[0]['value']))
  # Files that Orbax left of a failed save do not count as a step.
  names = {path.name for path in (stage / which).iterdir()}
  assert names - {'8.orbax-checkpoint-tmp'} == {'8'}
  return set(values)


def _full_disk(manager, monkeypatch):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  save = manager.save

  def limited(*args, **kwargs):
    # As in `test_a_full_disk_leaves_the_checkpoint_before`.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
      return save(*args, **kwargs)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

  monkeypatch.setattr(manager, 'save', limited)
  return errors.InputError


def _interrupted(manager, monkeypatch):
  def save(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(manager, 'save', save)
  return KeyboardInterrupt


def _killed(manager, monkeypatch):
  """Stops as SIGKILL does: nothing is mended."""
  error = _interrupted(manager, monkeypatch)
  monkeypatch.setattr(step_folders, 'mend', lambda directory: None)
  return error


def _killed_later(manager, monkeypatch):
  """Stops in the same way after the new version was saved."""
  mend = step_folders.mend
  save = manager.save

  def saved(*args, **kwargs):
    save(*args, **kwargs)
    monkeypatch.setattr(step_folders, 'mend', lambda directory: None)
    raise KeyboardInterrupt

  monkeypatch.setattr(manager, 'save', saved)
  assert mend is step_folders.mend
  return KeyboardInterrupt


@pytest.mark.parametrize('which', ('best', 'latest'))
@pytest.mark.parametrize(
  'end, value',
  ((_full_disk, 1), (_interrupted, 1), (_killed, 1), (_killed_later, 2)),
)
def test_the_old_or_the_new_version_is_left(
  tmp_path, monkeypatch, which, end, value
):
  checkpoints = _checkpoints(tmp_path)
  manager = getattr(checkpoints, f'_{which}')
  with monkeypatch.context() as patched:
    error = end(manager, patched)
    with pytest.raises(error):
      _save(checkpoints, which)
  assert _read(tmp_path, which) == {value}
  # The next process, or this one, can save the step.
  for again in (checkpoint.Checkpoints(tmp_path), checkpoints):
    _save(again, which)
    assert _read(tmp_path, which) == {2}


@pytest.mark.parametrize('which', ('best', 'latest'))
def test_the_old_version_stays_if_it_cannot_be_moved(
  tmp_path, monkeypatch, which
):
  def replace(source, target):
    raise OSError(30, 'Read-only file system')

  checkpoints = _checkpoints(tmp_path)
  with monkeypatch.context() as patched:
    patched.setattr(os, 'replace', replace)
    with pytest.raises(errors.InputError, match=f'{which}/8 cannot be written'):
      _save(checkpoints, which)
  assert _read(tmp_path, which) == {1}


@pytest.mark.parametrize('part', ('meta', 'state'))
def test_a_damaged_step_is_saved_again(tmp_path, part):
  checkpoints = _checkpoints(tmp_path)
  shutil.rmtree(tmp_path / 'best' / '8' / part)
  _save(checkpoints, 'best')
  assert _read(tmp_path, 'best') == {2}


def test_other_hidden_folders_stay(tmp_path):
  _checkpoints(tmp_path)
  (tmp_path / 'best' / '.notes').mkdir()
  (tmp_path / 'best' / '.notes' / '9').write_text('mine')
  step_folders.mend(tmp_path / 'best')
  assert (tmp_path / 'best' / '.notes' / '9').read_text() == 'mine'
  assert step_folders.found(tmp_path / 'best') == {8: tmp_path / 'best' / '8'}
