"""How long a whole training takes, EXTRAPOLATED from a few epochs a stage.

    python -m benchmarks.protocol                     the paper's protocol
    python -m benchmarks.protocol --config.dtype=bfloat16
    python -m benchmarks.protocol --config=configs/mtnet.py:test --epochs=2

The stages of the config are trained in their order, each on what the one before
it gives, with validations and checkpoints: `python -m mtnet_jax.main` without
its evaluation at the end. The first epoch of a stage waits for the compiler;
the median of the others stands for all that are left. On SIMULATED nodules, as
many as the paper's: what a step costs does not depend on what it sees.
"""

import pathlib
import tempfile
import time

from absl import app
from absl import flags
from ml_collections import config_flags
import numpy as np
import tqdm

from benchmarks import problem
from benchmarks import timing
from mtnet_jax.system import host_memory
from mtnet_jax.training import progress

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py', 'The config.'
)
_EPOCHS = flags.DEFINE_integer(
  'epochs', 3, 'Epochs of each stage to train.', lower_bound=2
)
_NODULES = flags.DEFINE_integer(
  'nodules', 0, 'At most so many of a split; 0 for all.'
)
_JSON = flags.DEFINE_string('json', '', 'File for the figures.')

_COLUMNS = {
  'stage': ('stage', ''),
  'steps': ('steps an epoch', 'd'),
  'first_s': ('first epoch, s', '.1f'),
  'epoch_s': ('another epoch, s', '.2f'),
  'epochs': ('epochs', 'd'),
  'minutes': ('EXTRAPOLATED, min', '.1f'),
}


class _Clock(progress.Silent):
  """Seconds of epochs with their validation, and of the checkpoint before."""

  def __init__(self):
    self.seconds = []

  def start(self, trainer, step, history):
    self._started = time.perf_counter()
    self._bar = tqdm.tqdm(
      total=trainer.total_steps, desc=f'{trainer.stage.name} (SIMULATED)'
    )

  def step(self, step, loss):
    self._bar.update()

  def epoch(self, row, history):
    now = time.perf_counter()
    self.seconds.append(now - self._started)
    self._started = now

  def finish(self):
    self._bar.close()


def measure(config, splits, *, epochs, folder):
  """A row of the table for each stage.

  Args:
    config: of the whole protocol.
    splits: of `nodules.Nodules`, 'train' and 'validation'.
    epochs: of each stage to train, two or more.
    folder: for checkpoints.
  """
  from mtnet_jax.models import nets as nets_lib
  from mtnet_jax.training import stages
  from mtnet_jax.training import trainer as trainer_lib

  short = config.copy_and_resolve_references()
  with short.unlocked():
    for stage in stages.make_stages(config):
      short[f'{stage.name}_stage'].epochs = epochs
  nets, trained, rows = nets_lib.make_nets(short), {}, []
  for stage in stages.make_stages(short):
    trainer = trainer_lib.Trainer(
      stage,
      short,
      nets=nets,
      trained=trained,
      **splits,
      directory=pathlib.Path(folder, stage.name),
    )
    clock = _Clock()
    trained[stage.name], _ = trainer.run(clock)
    rows.append(_row(trainer, config[f'{stage.name}_stage'].epochs, clock))
  return rows


def _row(trainer, epochs, clock):
  first, *others = clock.seconds
  epoch = float(np.median(others))
  return {
    'stage': trainer.stage.name,
    'steps': trainer.steps_per_epoch,
    'first_s': first,
    'epoch_s': epoch,
    'epochs': epochs,
    'minutes': (first + (epochs - 1) * epoch) / 60,
  }


def main(_):
  host_memory.keep()
  config = _CONFIG.value
  splits = {
    split: problem.phantoms(split, data_dir=config.dataset.data_dir)
    for split in ('train', 'validation')
  }
  if _NODULES.value:
    splits = {
      split: nodules.take(slice(0, _NODULES.value))
      for split, nodules in splits.items()
    }
  with tempfile.TemporaryDirectory() as folder:
    rows = measure(config, splits, epochs=_EPOCHS.value, folder=folder)
  print(timing.describe(timing.environment()))
  print(timing.table(rows, _COLUMNS))
  minutes = sum(row['minutes'] for row in rows)
  print(
    f'{minutes:.1f} minutes in all, EXTRAPOLATED from {_EPOCHS.value} epochs a'
    f' stage; SIMULATED CT, {len(splits["train"])} training nodules.'
  )
  if _JSON.value:
    settings = {
      'simulated': True,
      'variant': config.variant,
      'dtype': config.dtype,
      'epochs': _EPOCHS.value,
      'minutes': minutes,
    }
    timing.write_json(_JSON.value, settings=settings, stages=rows)


if __name__ == '__main__':
  app.run(main)
