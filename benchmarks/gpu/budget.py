"""How many epochs of each stage fit into a time, found by a few steps.

Coarse Seg-net and Class-net run a few steps, a validation and a checkpoint
each. Fine Seg-net is Coarse Seg-net with one more input and Coarse Seg-net's
forward pass before each step, so its time follows. The programs of a run are
others, because a schedule's length is part of them. Those of later stages are
therefore compiled while the first stage trains.
"""

import concurrent.futures
import dataclasses
import pathlib
import time

import jax

from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.storage import checkpoint
from mtnet_jax.system import devices
from mtnet_jax.training import calls as calls_lib
from mtnet_jax.training import stages as stages_lib
from mtnet_jax.training import trainer as trainer_lib

# Of the time that is left; the rest is for the evaluation.
SHARES = {'coarse': 0.4, 'class': 0.2, 'fine': 0.3}
# Fine Seg-net's epoch, measured by Coarse Seg-net's: a forward pass more, which
# is a third of a step.
_FINE_TO_COARSE = 1.4
# Of a share, in case that later epochs take longer.
_USED = 0.93
# The part of a compilation that is repeated where a constant changes: what was
# tuned for the card is found again.
_COMPILED_AGAIN = 0.7
# What the tests of a checkpoint and of the calls add to a stage.
_STAGE_S = 3
_TIMED_CALLS = 2
_TIMED_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Cost:
  """Seconds of a stage.

  Attributes:
    compile_s: until its first step, and its first validation, were done.
    step_s: of a step.
    end_s: of a validation and a checkpoint, at the end of an epoch.
    steps_per_epoch: steps of an epoch.
  """

  compile_s: float
  step_s: float
  end_s: float
  steps_per_epoch: int

  @property
  def epoch_s(self):
    """Seconds of an epoch."""
    return self.steps_per_epoch * self.step_s + self.end_s


def measure(config, splits, folder):
  """The `Cost` of each stage, by name.

  Args:
    config: of the run; its numbers of epochs do not matter.
    splits: split name -> `nodules.Nodules`.
    folder: for checkpoints.
  """
  trainers = trainers_of(config, splits, folder, until='class')
  with concurrent.futures.ThreadPoolExecutor() as pool:
    # XLA compiles them side by side; what is timed afterwards runs alone.
    ready = dict(
      zip(trainers, pool.map(_first_step, trainers.values()), strict=True)
    )
  costs = {
    name: _timed(config, trainers[name], *ready.pop(name), folder)
    for name in trainers
  }
  coarse = costs['coarse']
  return {
    **costs,
    'fine': dataclasses.replace(
      coarse,
      step_s=coarse.step_s * _FINE_TO_COARSE,
      end_s=coarse.end_s * _FINE_TO_COARSE,
    ),
  }


def epochs_for(costs, seconds, *, max_epochs):
  """Epochs of each stage that fit into so many seconds, one at least.

  Args:
    costs: of `measure`.
    seconds: for all stages and the evaluation.
    max_epochs: stage name -> the largest number.
  """
  found = {}
  for name, share in SHARES.items():
    cost = costs[name]
    left = _USED * share * seconds - _STAGE_S
    if name == 'coarse':
      left -= _COMPILED_AGAIN * cost.compile_s
    epochs = int(left / cost.epoch_s)
    found[name] = min(max(epochs, 1), max_epochs[name])
  return found


def trainers_of(config, splits, folder, *, until):
  """Trainers of stages on untrained networks before them.

  Args:
    config, splits, folder: as in `measure`.
    until: the last stage.

  Returns:
    Stage name -> `trainer.Trainer`.
  """
  nets, trained, found = nets_lib.make_nets(config), {}, {}
  for stage in stages_lib.make_stages(config):
    trainer = trainer_lib.Trainer(
      stage,
      config,
      nets=nets,
      trained=trained,
      train=splits['train'],
      validation=splits['validation'],
      directory=pathlib.Path(folder, stage.name),
    )
    found[stage.name] = trainer
    if stage.name == until:
      break
    state = trainer.init_state()
    trained[stage.name] = _variables(state)
  return found


def _variables(state):
  return {'params': state.params, 'batch_stats': state.batch_stats}


def _first_step(trainer):
  """Compiles what a stage needs; its state, and the seconds."""
  started = time.monotonic()
  state = trainer.put_on_devices(trainer.init_state())
  state, _ = trainer.steps(state, 0)
  trainer.validate(_variables(state))
  return state, time.monotonic() - started


def _timed(config, trainer, state, compile_s, folder):
  num_steps = min(
    _TIMED_STEPS, calls_lib.max_steps(config), trainer.steps_per_epoch
  )
  jax.block_until_ready(state)
  started = time.monotonic()
  for _ in range(_TIMED_CALLS):
    state, _ = trainer.steps(state, 0, num_steps=num_steps)
  jax.block_until_ready(state)
  step_s = (time.monotonic() - started) / (_TIMED_CALLS * num_steps)
  started = time.monotonic()
  trainer.validate(_variables(state))
  host = devices.unreplicate(state)
  checkpoints = checkpoint.Checkpoints(pathlib.Path(folder, trainer.stage.name))
  checkpoints.save_latest(1, host, {})
  checkpoints.save_best(1, _variables(host), {})
  return Cost(
    compile_s=compile_s,
    step_s=step_s,
    end_s=time.monotonic() - started,
    steps_per_epoch=trainer.steps_per_epoch,
  )


class Ahead:
  """Compiles what a run needs later while it trains its first stage.

  What was compiled is found again because equal stages share their programs.

  Args:
    config: of the run, with its numbers of epochs.
    splits: split name -> `nodules.Nodules`.
    folder: for checkpoints, none of which are written.
  """

  def __init__(self, config, splits, folder):
    self._pool = concurrent.futures.ThreadPoolExecutor(2)
    trainers = trainers_of(config, splits, folder, until='fine')
    variables = {
      name: _variables(trainer.init_state())
      for name, trainer in trainers.items()
    }
    self._futures = {
      name: self._pool.submit(_compile, trainers[name])
      for name in trainers
      if name != 'coarse'
    }
    few = splits['test'].take(slice(0, config.eval_batch_size))
    self._futures['test'] = self._pool.submit(
      outputs_lib.predict, config, variables, few, progress=iter
    )

  def wait(self, name, seconds):
    """Waits until a stage, or 'test', is compiled.

    Raises:
      What compiling raised, or TimeoutError after so many seconds.
    """
    if name in self._futures:
      self._futures[name].result(timeout=max(seconds, 0))

  def close(self):
    """Drops what nobody waits for any more."""
    self._pool.shutdown(wait=False, cancel_futures=True)


def _compile(trainer):
  # The state is dropped: the run has one of its own.
  _first_step(trainer)
