"""One step on several devices is the same step."""

import sys

import main_job
import numpy as np
import pytest

pytestmark = pytest.mark.slow

_STAGES = ('coarse', 'class', 'fine')
# Float32 keeps 24 bits, so that a rounding moves a value by up to 6e-8 of it.
# Ones and eights differ in the order of sums only, over up to 16 x 64 x 64
# values, whose roundings add up like a random walk: to some
# sqrt(65536) * 6e-8 = 1.5e-5 at worst. Backward, the errors of dozens of layers
# add up on top. Measured, with ReLUs as they are: losses 5e-7, statistics
# 8e-7, gradients 9e-6 of their norm and 2e-5 of a single leaf's; since, 5e-6.
_FORWARD = 1e-5
_BACKWARD = 1e-4


@pytest.fixture(scope='module')
def job(tmp_path_factory, compiled):
  """Runs `step_job` on so many devices; the path of what it found."""

  def run(devices, *arguments):
    out = tmp_path_factory.mktemp('steps') / 'found.npz'
    script = main_job.ROOT / 'tests' / 'step_job.py'
    done = main_job.run(
      [sys.executable, *map(str, (script, out, devices, *arguments))],
      XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
      **compiled,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out

  return run


@pytest.fixture(scope='module')
def paths(job):
  """What one device found, and eight; both score what the one has trained."""
  one = job(1, 'sync', ','.join(_STAGES))
  return one, job(8, 'sync', ','.join(_STAGES), one)


@pytest.fixture(scope='module')
def one(paths):
  return dict(np.load(paths[0]))


@pytest.fixture(scope='module')
def eight(paths):
  return dict(np.load(paths[1]))


def tree(found, *position):
  prefix = '/'.join(position) + '/'
  leaves = {
    key.removeprefix(prefix): np.asarray(value, np.float64)
    for key, value in found.items()
    if key.startswith(prefix)
  }
  assert leaves
  return leaves


def difference(left, right):
  """Norm of the difference of two trees, as a share of the norm of one."""
  assert left.keys() == right.keys()

  def norm(leaves):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves))

  return norm(left[key] - right[key] for key in left) / norm(left.values())


@pytest.mark.parametrize('stage', _STAGES)
def test_one_device_and_eight_give_the_same_losses(one, eight, stage):
  losses = one[f'{stage}/losses']
  assert losses.shape == (3,) and np.all(losses > 0)
  np.testing.assert_allclose(eight[f'{stage}/losses'], losses, rtol=_FORWARD)


@pytest.mark.parametrize('stage', _STAGES)
def test_one_device_and_eight_give_the_same_batch_statistics(one, eight, stage):
  ours, theirs = (tree(found, stage, 'batch_stats') for found in (one, eight))
  for name, leaf in ours.items():
    np.testing.assert_allclose(
      theirs[name], leaf, rtol=_FORWARD, atol=_FORWARD, err_msg=name
    )


@pytest.mark.parametrize('stage', _STAGES)
def test_one_device_and_eight_give_the_same_gradients(one, eight, stage):
  ours, theirs = (tree(found, stage, 'gradient') for found in (one, eight))
  assert difference(ours, theirs) < _BACKWARD
  # Leaf by leaf, too, but for the biases before a batch norm: it takes the
  # mean away, so their gradients are 0 and what is found is rounding.
  whole = np.sqrt(sum(np.sum(leaf**2) for leaf in ours.values()))
  compared = 0
  for name, leaf in ours.items():
    if np.linalg.norm(leaf) > 1e-4 * whole:
      compared += 1
      assert difference({name: leaf}, {name: theirs[name]}) < _BACKWARD, name
  assert compared > len(ours) / 2


def test_one_device_and_eight_predict_the_same(one, eight):
  """13 patches, which no number of devices divides, each once."""
  ours, theirs = (tree(found, 'output') for found in (one, eight))
  assert ours.keys() == {'coarse', 'fine', 'class', 'cam'}
  for name, values in ours.items():
    assert len(values) == 13
    assert np.std(values) > 1e-3, name
    np.testing.assert_allclose(
      theirs[name], values, rtol=_FORWARD, atol=_FORWARD, err_msg=name
    )


def test_one_device_and_eight_give_the_same_metrics(one, eight):
  ours, theirs = (tree(found, 'metric') for found in (one, eight))
  for name, values in ours.items():
    np.testing.assert_allclose(theirs[name], values, atol=1e-3, err_msg=name)
  # They are of masks that are neither empty nor all there is.
  assert 0 < np.mean(ours['coarse/recall']) < 1
  assert 0 < np.mean(ours['fine/recall']) < 1


def test_without_synchronised_statistics_all_of_it_differs(job, one):
  """The tests above can fail: ten times what they allow is not enough.

  By how much the losses differ depends on the initial parameters: 7e-4.
  """
  apart = dict(np.load(job(8, 'apart', 'coarse')))
  losses = one['coarse/losses']
  apart_by = np.max(np.abs(apart['coarse/losses'] / losses - 1))
  assert apart_by > 10 * _FORWARD
  for kind, bound in (('gradient', _BACKWARD), ('batch_stats', _FORWARD)):
    ours, theirs = (tree(found, 'coarse', kind) for found in (one, apart))
    assert difference(ours, theirs) > 10 * bound, kind
