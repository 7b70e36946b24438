"""A step on several devices gives the results of a step on one."""

import sys

import main_job
import numpy as np
import pytest

pytestmark = pytest.mark.slow

_STAGES = ('coarse', 'class', 'fine')
# Float32 has 24 bits, so a rounding changes a value by up to 6e-8 of it. One
# device and eight differ only in the order of sums, over up to 16 x 64 x 64
# values, whose roundings add up like a random walk: to some
# sqrt(65536) * 6e-8 = 1.5e-5 at worst. In the backward pass, the errors of
# dozens of layers are added. Measured with ordinary ReLUs: losses 5e-7,
# statistics 8e-7, gradients 9e-6 of their norm and 2e-5 of a single leaf's; and
# with the smooth ReLUs of `step_job`, gradients 5e-6.
_FORWARD = 1e-5
_BACKWARD = 1e-4


@pytest.fixture(scope='module')
def job(tmp_path_factory, compiled):
  """A function that runs `step_job` and returns the path of its results."""

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
  """Paths of the results of one device and eight.

  Both evaluate the variables that the one device has trained.
  """
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
  """Returns the norm of the difference of two trees, relative to the left."""
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
  # Leaf by leaf as well, except for biases before a batch norm. It subtracts
  # the mean, so their true gradients are 0, and the computed ones are rounding.
  whole = np.sqrt(sum(np.sum(leaf**2) for leaf in ours.values()))
  compared = 0
  for name, leaf in ours.items():
    if np.linalg.norm(leaf) > 1e-4 * whole:
      compared += 1
      assert difference({name: leaf}, {name: theirs[name]}) < _BACKWARD, name
  assert compared > len(ours) / 2


def test_one_device_and_eight_predict_the_same(one, eight):
  """Each of the 13 patches, which eight devices do not divide, counts once."""
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
  # The masks are neither empty nor full.
  assert 0 < np.mean(ours['coarse/recall']) < 1
  assert 0 < np.mean(ours['fine/recall']) < 1


@pytest.mark.long
def test_without_synchronised_statistics_all_of_it_differs(job, one):
  """The tests above can fail: the differences exceed ten times their bounds.

  How much the losses differ depends on the initial parameters: here by 7e-4.
  """
  apart = dict(np.load(job(8, 'apart', 'coarse')))
  losses = one['coarse/losses']
  apart_by = np.max(np.abs(apart['coarse/losses'] / losses - 1))
  assert apart_by > 10 * _FORWARD
  for kind, bound in (('gradient', _BACKWARD), ('batch_stats', _FORWARD)):
    ours, theirs = (tree(found, 'coarse', kind) for found in (one, apart))
    assert difference(ours, theirs) > 10 * bound, kind
