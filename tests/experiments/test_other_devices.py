"""A run trained on eight devices gives the same outputs on one."""

import os
import sys

import main_job
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax.data import lidc
from mtnet_jax.storage import workdir

_EIGHT = '--xla_force_host_platform_device_count=8'

_PREDICT = """
import sys
import jax
import numpy as np
from mtnet_jax.data import lidc
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.models import nets
from mtnet_jax.storage import workdir

assert jax.device_count() == 8
run, data_dir, out = sys.argv[1:]
config = workdir.read_config(run)
data = lidc.load_split(
  config.dataset.name, 'test', data_dir=data_dir, limit=config.dataset.limit
)
variables = workdir.load_variables(run, nets.ORDER)
outputs = outputs_lib.predict(
  config, variables, data, progress=lambda batches: batches
)
np.savez(out, **outputs)
"""


@pytest.mark.long
def test_a_run_on_eight_devices_is_loaded_on_one(
  tmp_path, phantom_data_dir, compiled
):
  run = tmp_path / 'run'
  flags = {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {_EIGHT}'}
  done = main_job.run(
    main_job.small_job(run, phantom_data_dir), **compiled, **flags
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert '8 x cpu' in done.stdout
  out = tmp_path / 'eight.npz'
  done = main_job.run(
    [sys.executable, '-c', _PREDICT, str(run), str(phantom_data_dir), str(out)],
    **compiled,
    **flags,
  )
  assert done.returncode == 0, done.stderr[-3000:]

  config = workdir.read_config(run)
  data = lidc.load_split(
    config.dataset.name,
    'test',
    data_dir=phantom_data_dir,
    limit=config.dataset.limit,
  )
  prediction = mtnet_jax.load(run).predict(
    data.image, data.info['pixel_spacing_mm']
  )
  with np.load(out) as eight:
    for name, key in (
      ('probability', 'fine'),
      ('malignancy', 'class'),
      ('cam', 'cam'),
    ):
      np.testing.assert_allclose(
        getattr(prediction, name), eight[key], atol=1e-5, err_msg=name
      )
      assert np.ptp(eight[key]) > 1e-3
