"""Networks trained in bfloat16 are as good as those trained in float32."""

import functools
import json
import operator
import shutil

import main_job
import pytest

pytestmark = pytest.mark.long

# Path of a metric in metrics.json -> a value that trained networks exceed.
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
  """Function (dtype): trains smaller coarse and class nets than the demo."""

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
  """A run in float32, whose networks have learned something."""
  workdir = trained('float32')
  for where, metric in _test_metrics(workdir).items():
    # Any networks would agree with untrained ones.
    assert metric['value'] > _METRICS[where]
  return workdir


def test_metrics_of_the_same_weights_are_within_the_intervals(
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
  metrics = _test_metrics(tmp_path / 'found')
  for where, metric in _test_metrics(float32).items():
    low, high = metric['ci95']
    assert low <= metrics[where]['value'] <= high, where
  # The results differ, so it did compute in another type.
  dice = ('segmentation', 'coarse', 'dice')
  assert metrics[dice]['value'] != _test_metrics(float32)[dice]['value']


def test_networks_trained_in_it_are_no_worse(float32, trained):
  """Metrics are not below the intervals of float32.

  They may be above: two trainings differ by more than rounding, and either may
  find better weights.
  """
  metrics = _test_metrics(trained('bfloat16'))
  for where, metric in _test_metrics(float32).items():
    assert metrics[where]['value'] >= metric['ci95'][0], where
