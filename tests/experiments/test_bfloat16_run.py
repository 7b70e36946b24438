"""What is learned in bfloat16 is as good as what is learned in float32."""

import functools
import json
import operator
import shutil

import main_job
import pytest

pytestmark = pytest.mark.long

# Where a metric is, and what networks that learned something reach.
_METRICS = {
  ('segmentation', 'coarse', 'dice'): 0.6,
  ('classification', 'auc'): 0.8,
}


def _test_metrics(folder):
  metrics = json.loads((folder / 'metrics.json').read_text())['test']
  return {
    where: functools.reduce(operator.getitem, where, metrics)
    for where in _METRICS
  }


@pytest.fixture(scope='module')
def trained(tmp_path_factory, phantom_data_dir, compiled):
  """Trains the demo's coarse and class nets, on a third of its pixels."""

  def run(dtype):
    workdir = tmp_path_factory.mktemp('runs') / dtype
    done = main_job.run(
      main_job.module(
        'mtnet_jax.main',
        f'--config={main_job.ROOT}/configs/mtnet.py:demo',
        f'--workdir={workdir}',
        f'--config.dataset.data_dir={phantom_data_dir}',
        f'--config.dtype={dtype}',
        '--config.image_size=64',
        '--config.seg_net.middle_blocks=1',
        '--config.class_net.middle_blocks=1',
        "--config.stages=('coarse', 'class')",
      ),
      **compiled,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return workdir

  return run


@pytest.fixture(scope='module')
def float32(trained):
  """A run in float32, of networks that learned something."""
  workdir = trained('float32')
  for where, metric in _test_metrics(workdir).items():
    # Else any others would agree with them.
    assert metric['value'] > _METRICS[where]
  return workdir


def test_answers_of_the_same_networks_are_within_the_intervals(
  float32, tmp_path, compiled
):
  workdir = tmp_path / 'in_bfloat16'
  shutil.copytree(float32, workdir)
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  assert config['dtype'] == 'float32'
  path.write_text(json.dumps({**config, 'dtype': 'bfloat16'}))
  done = main_job.run(
    main_job.module(
      'mtnet_jax.evaluate', f'--workdir={workdir}', f'--out={tmp_path}/found'
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = _test_metrics(tmp_path / 'found')
  for where, metric in _test_metrics(float32).items():
    low, high = metric['ci95']
    assert low <= found[where]['value'] <= high, where
  # It did compute in another type.
  dice = ('segmentation', 'coarse', 'dice')
  assert found[dice]['value'] != _test_metrics(float32)[dice]['value']


def test_networks_trained_in_it_are_no_worse(float32, trained):
  """Not below the intervals: two trainings differ by more than rounding.

  One of them may find better weights, whichever it is.
  """
  found = _test_metrics(trained('bfloat16'))
  for where, metric in _test_metrics(float32).items():
    assert found[where]['value'] >= metric['ci95'][0], where
