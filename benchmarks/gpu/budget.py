"""Estimates how many epochs of each stage fit into a time limit.

Coarse Seg-net and Class-net each run a few steps, one validation and one
checkpoint. A step of Fine Seg-net is a step of Coarse Seg-net with one more
input, after a forward pass of Coarse Seg-net, so its cost is derived from that
of Coarse Seg-net.

The compiled programs of these measurements cannot be reused for the run,
because the length of the learning rate schedule is part of a program. The
programs of the later stages are therefore compiled while the first stage
trains.
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

# Shares of the remaining time; the rest is for the evaluation.
SHARES = {'coarse': 0.4, 'class': 0.2, 'fine': 0.3}
# Cost of Fine Seg-net relative to Coarse Seg-net: it adds a forward pass, which
# takes about a third of a step.
_FINE_TO_COARSE = 1.4
# The part of a share that is planned; the rest allows for slower epochs.
_PLANNED_SHARE = 0.93
# The part of the compilation time that is needed again when a constant changes;
# autotuning results are cached.
_RECOMPILED_SHARE = 0.7
# What the checks of a checkpoint and of the calls add to a stage, in seconds.
_STAGE_OVERHEAD_S = 3
_TIMED_CALLS = 2
_TIMED_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Cost:
  """The measured cost of a stage.

  Attributes:
    compile_s: seconds of the first step and first validation, with compilation.
    step_s: seconds of a step.
    end_s: seconds of the validation and checkpoint at the end of an epoch.
    steps_per_epoch: number of steps in an epoch.
  """

  compile_s: float
  step_s: float
  end_s: float
  steps_per_epoch: int

  @property
  def epoch_s(self):
    """Seconds of an epoch, with validation and checkpoint."""
    return self.steps_per_epoch * self.step_s + self.end_s


def measure(config, splits, folder):
  """Measures the `Cost` of each stage.

  Args:
    config: config of the run; its numbers of epochs do not matter.
    splits: split name -> `nodules.Nodules`.
    folder: folder for checkpoints.

  Returns:
    Stage name -> `Cost`.
  """
  trainers = trainers_of(config, splits, folder, until='class')
  with concurrent.futures.ThreadPoolExecutor() as pool:
    # The stages compile in parallel. The timed steps below run alone.
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
  """Returns how many epochs of each stage fit into a time, at least one.

  Args:
    costs: stage name -> `Cost`, as `measure` returns them.
    seconds: time for all stages and the evaluation.
    max_epochs: stage name -> the largest number of epochs.

  Returns:
    Stage name -> number of epochs.
  """
  epochs_by_stage = {}
  for name, share in SHARES.items():
    cost = costs[name]
    remaining_s = _PLANNED_SHARE * share * seconds - _STAGE_OVERHEAD_S
    if name == 'coarse':
      remaining_s -= _RECOMPILED_SHARE * cost.compile_s
    epochs = int(remaining_s / cost.epoch_s)
    epochs_by_stage[name] = min(max(epochs, 1), max_epochs[name])
  return epochs_by_stage


def trainers_of(config, splits, folder, *, until):
  """Makes trainers of the stages; their upstream networks are untrained.

  Args:
    config: config of the run.
    splits: split name -> `nodules.Nodules`.
    folder: folder for checkpoints.
    until: name of the last stage.

  Returns:
    Stage name -> `trainer.Trainer`.
  """
  nets, trained, trainers = nets_lib.make_nets(config), {}, {}
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
    trainers[stage.name] = trainer
    if stage.name == until:
      break
    state = trainer.init_state()
    trained[stage.name] = _variables(state)
  return trainers


def _variables(state):
  return {'params': state.params, 'batch_stats': state.batch_stats}


def _first_step(trainer):
  """Compiles the programs of a stage; returns its state and the seconds."""
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
  """Compiles the programs of later stages while a run trains its first stage.

  The run finds the compiled programs because equal stages share their programs.

  Args:
    config: config of the run, with its numbers of epochs.
    splits: split name -> `nodules.Nodules`.
    folder: folder for checkpoints; nothing is written there.
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
    one_batch = splits['test'].take(slice(0, config.eval_batch_size))
    self._futures['test'] = self._pool.submit(
      outputs_lib.predict, config, variables, one_batch, progress=iter
    )

  def wait(self, name, seconds):
    """Waits until a stage, or 'test', is compiled.

    Args:
      name: a stage name, or 'test' for the evaluation.
      seconds: the longest time to wait.

    Raises:
      TimeoutError: the time is over. An error of the compilation is raised
        here, too.
    """
    if name in self._futures:
      self._futures[name].result(timeout=max(seconds, 0))

  def close(self):
    """Cancels compilations that have not started."""
    self._pool.shutdown(wait=False, cancel_futures=True)


def _compile(trainer):
  # The run makes its own state, so this one is not kept.
  _first_step(trainer)
