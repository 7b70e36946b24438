"""One step on several devices is the same step."""

import sys

import main_job
import numpy as np
import pytest

pytestmark = pytest.mark.slow

_STAGES = ('coarse', 'class', 'fine')
# Float32 keeps 24 bits: a rounding is at most 6e-8 of a value. The two runs
# differ in the order of sums only, over up to 16 x 64 x 64 values forward and
# again backward, whose roundings add up like a random walk: some
# sqrt(65536) * 6e-8 = 1.5e-5 of the whole. Measured: MEASURED
_FORWARD = 1e-5
_BACKWARD = 1e-4


@pytest.fixture(scope='module')
def job(tmp_path_factory, compiled):
  """Runs `step_job`: (devices, 'sync' or 'apart', stages) -> its arrays."""

  def run(devices, sync, *names):
    out = tmp_path_factory.mktemp('steps') / 'found.npz'
    script = main_job.ROOT / 'tests' / 'step_job.py'
    done = main_job.run(
      [sys.executable, *map(str, (script, out, devices, sync, *names))],
      XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
      **compiled,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as found:
      return dict(found)

  return run


@pytest.fixture(scope='module')
def one(job):
  return job(1, 'sync', *_STAGES)


@pytest.fixture(scope='module')
def eight(job):
  return job(8, 'sync', *_STAGES)


def tree(found, stage, kind):
  prefix = f'{stage}/{kind}/'
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


@pytest.mark.parametrize('stage', _STAGES)
def test_one_device_and_eight_give_the_same_metrics(one, eight, stage):
  """Of 13 patches, which no number of devices divides."""
  ours, theirs = (tree(found, stage, 'metric') for found in (one, eight))
  for name, value in ours.items():
    np.testing.assert_allclose(theirs[name], value, rtol=1e-4, err_msg=name)


def test_without_synchronised_statistics_all_of_it_differs(job, one):
  """The tests above can fail."""
  apart = job(8, 'apart', 'coarse')
  losses = one['coarse/losses']
  assert np.max(np.abs(apart['coarse/losses'] / losses - 1)) > 1e-3
  for kind in ('gradient', 'batch_stats'):
    ours, theirs = (tree(found, 'coarse', kind) for found in (one, apart))
    assert difference(ours, theirs) > 1e-2, kind
