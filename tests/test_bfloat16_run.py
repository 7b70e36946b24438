"""What is learned in bfloat16 is as good as what is learned in float32."""

import functools
import json
import operator

import main_job
import pytest

# Phantoms at a quarter of the demo's pixels: enough to learn from, and soon
# over.
_FLAGS = ('--config.image_size=64', '--config.dataset.fallback=')


def _metrics(workdir, data_dir, dtype, compiled):
  """Metrics of the test split, of a run that is made here."""
  done = main_job.run(
    main_job.module(
      'mtnet_jax.main',
      f'--config={main_job.ROOT}/configs/mtnet.py:demo',
      f'--workdir={workdir}',
      f'--config.dataset.data_dir={data_dir}',
      f'--config.dtype={dtype}',
      *_FLAGS,
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads((workdir / 'metrics.json').read_text())['test']


@pytest.mark.slow
def test_within_the_intervals_of_float32(tmp_path, phantom_data_dir, compiled):
  short, full = (
    _metrics(tmp_path / dtype, phantom_data_dir, dtype, compiled)
    for dtype in ('bfloat16', 'float32')
  )
  for where, learned in (
    (('segmentation', 'coarse', 'dice'), 0.5),
    (('segmentation', 'fine', 'dice'), 0.5),
    (('classification', 'auc'), 0.7),
  ):
    value, expected = (
      functools.reduce(operator.getitem, where, metrics)
      for metrics in (short, full)
    )
    print(where, value, expected)
    # Networks that learned nothing would agree, too.
    assert expected['value'] > learned
    low, high = expected['ci95']
    assert low <= value['value'] <= high
