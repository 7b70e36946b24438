"""One step on several devices is the same step."""

import sys

import main_job
import numpy as np
import pytest

# Five steps of each stage at test size on made-up patches; writes the losses.
# Dropout is drawn per device, so it is off.
_SCRIPT = """
import importlib.util, pathlib, sys
import jax, numpy as np
from mtnet_jax import input_pipeline, train, stages

root, devices, out = sys.argv[1:]
assert jax.local_device_count() == int(devices)
spec = importlib.util.spec_from_file_location('c', root + '/configs/mtnet.py')
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
config = module.get_config('test')
with config.unlocked():
  config.seg_net.dropout_rates = (0.0, 0.0, 0.0)
  for stage in stages.ORDER:
    config[f'{stage}_stage'].learning_rate = 1e-4
    config[f'{stage}_stage'].schedule = 'constant'
  # A threshold would lift differences of rounding into differences of pixels.
  config.coarse_mask = 'soft'
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:64, :64]
radius = rng.uniform(4, 12, (24, 1, 1))
mask = (rows - 32) ** 2 + (columns - 32) ** 2 < radius ** 2
image = np.where(mask, -50, -850) + rng.normal(0, 40, (24, 64, 64))
data = input_pipeline.Nodules(
    image=image.astype(np.int16), mask=mask.astype(np.uint8),
    votes=mask.astype(np.uint8), label=(radius[:, 0, 0] > 8).astype(np.int32),
    info={}, simulated=True)
nets = stages.make_nets(config)
losses = {}
coarse = None
for stage in stages.make_stages(config):
  trainer = train.Trainer(
      stage, config, nets=nets, coarse_variables=coarse, train=data,
      validation=data, directory=pathlib.Path(out).with_suffix('.ckpt'))
  fresh = trainer.fresh_state()
  state = trainer.place(fresh)
  losses[stage.name] = []
  for step in range(5):
    state, values = trainer.step(state, step)
    losses[stage.name].append(float(np.asarray(values['loss'])[0]))
  if stage.name == 'coarse':
    # The same on any number of devices; what was trained differs by rounding.
    coarse = {'params': fresh.params, 'batch_stats': fresh.batch_stats}
np.savez(out, **losses)
"""


def losses_on(devices, out):
  done = main_job.run(
    [sys.executable, '-c', _SCRIPT, str(main_job.ROOT), str(devices), str(out)],
    XLA_FLAGS=f'--xla_force_host_platform_device_count={devices}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return np.load(out)


@pytest.mark.slow
def test_one_device_and_four_give_the_same_losses(tmp_path):
  """1 x 8 and 4 x 2 examples: the same but for the order of float32 sums.

  The tolerance: measured differences stay below 2e-6 over five steps. Batch
  statistics that are not synchronised make losses differ by 1e-3 and more, a
  learning rate or seed that depends on the device by far more.
  """
  one = losses_on(1, tmp_path / 'one.npz')
  four = losses_on(4, tmp_path / 'four.npz')
  for stage in ('coarse', 'class', 'fine'):
    assert one[stage].shape == (5,)
    assert np.all(np.isfinite(one[stage]))
    np.testing.assert_allclose(four[stage], one[stage], rtol=1e-5)
