"""Dispatches training steps to the devices, several of them per call.

On every call the host spends time on each array of the state, for each device:
more than a step of a fast GPU may take. Several steps therefore share one call,
in a loop that runs on the devices. The number of iterations is an argument of
the compiled loop, and changes no bit of the result.

The rule for several processes: after each dispatch, all of them wait for the
same calls. Every step sums over the devices of all processes, so it ends
nowhere before every process has dispatched it. A process that has seen the
losses of a call may end the run, because one of them is not finite. Had another
process dispatched one call more by then, it would wait in that call for ever.
What a process waits for therefore follows from the number of calls alone, which
is the same everywhere, and never from how far its own devices have come.
"""

import collections
from collections.abc import Callable
import statistics
import time
from typing import TYPE_CHECKING
from typing import NoReturn

import jax
import ml_collections

from mtnet_jax.system import devices
from mtnet_jax.system import processes
from mtnet_jax.system import stopping
from mtnet_jax.training import step as step_lib

if TYPE_CHECKING:
  from mtnet_jax.training import progress

# Calls that may wait behind the one that runs. One is enough to keep the
# devices busy, and the host does not run far ahead of them.
_MAX_WAITING = 1
# A call should take about this long. Up to three calls may be dispatched before
# a loss is seen or SIGTERM is handled.
_SECONDS_PER_CALL = 0.25
_MAX_STEPS_PER_CALL = 32
# Timed calls of a round, after a first one, which includes the compilation.
_TIMED_CALLS = 3
# Rounds of timed calls. The calls of the first round have one step each, so
# their time includes the host's; those of the second have as many steps as the
# first round allows.
_ROUNDS = 2


def max_steps(config: ml_collections.ConfigDict) -> int:
  """Returns the largest number of steps that a compiled call can run.

  A call of at most one step is compiled without a loop, and may round
  differently. It is the faster program on CPUs, where a call costs little
  compared with a step.

  Args:
    config: its `steps_per_call`; 0 for a number that suits the devices.
  """
  if config.steps_per_call:
    return config.steps_per_call
  return 1 if jax.default_backend() == 'cpu' else _MAX_STEPS_PER_CALL


class Pace:
  """Chooses how many steps share a call, from the time of the first calls.

  Args:
    config: as in `max_steps`. A `steps_per_call` above 0 is used from the
      first call on.

  Attributes:
    max_steps: as returned by `max_steps`.
    step_seconds: time of one step on the first process; None until the timing
      is complete.
  """

  max_steps: int
  step_seconds: float | None

  def __init__(self, config: ml_collections.ConfigDict):
    self.max_steps = max_steps(config)
    self.step_seconds = None
    self._fixed = bool(config.steps_per_call)
    self._num_steps = self.max_steps if self._fixed else 1
    self._rounds = 1 if self._fixed or self.max_steps == 1 else _ROUNDS
    self._seconds: list[float] = []

  def num_steps(self, remaining: int) -> int:
    """Returns the number of steps of the next call.

    Args:
      remaining: steps until the end of the epoch.
    """
    return min(remaining, self._num_steps)

  @property
  def is_timing(self) -> bool:
    """Whether the next call must be waited for and passed to `record`."""
    return self.step_seconds is None

  def record(self, num_steps: int, seconds: float) -> None:
    """Records the time of a call; every process records every timed call.

    The first process's times decide for all processes, so that all of them
    dispatch the same calls.

    Args:
      num_steps: steps of the call.
      seconds: from its dispatch to its end.
    """
    self._seconds.append(seconds / num_steps)
    if len(self._seconds) <= _TIMED_CALLS:
      return
    median = processes.on_first(lambda: statistics.median(self._seconds[1:]))
    if not self._fixed:
      self._num_steps = min(
        max(int(_SECONDS_PER_CALL / median), 1), self.max_steps
      )
    self._rounds -= 1
    if self._rounds:
      self._seconds = self._seconds[:1]
    else:
      self.step_seconds = median


class Calls:
  """The calls of a stage, the last of which may still be running.

  Args:
    run_steps: (state, step, num_steps=) -> (state, losses), as
      `trainer.Trainer.steps`. It may return before the devices are done.
    pace: the stage's `Pace`.
    observer: is notified of every step, and once of the time of a step.
    on_not_finite: called with the step and its loss where the loss or its
      gradient is not finite. It raises.
  """

  def __init__(
    self,
    run_steps: Callable[..., tuple[step_lib.TrainState, dict[str, jax.Array]]],
    *,
    pace: Pace,
    observer: 'progress.Observer | progress.Silent',
    on_not_finite: Callable[[int, float], NoReturn],
  ):
    self._run_steps, self._pace = run_steps, pace
    self._observer, self._on_not_finite = observer, on_not_finite
    self._in_flight: collections.deque = collections.deque()

  def dispatch(
    self, state: step_lib.TrainState, step: int, remaining: int
  ) -> tuple[step_lib.TrainState, int]:
    """Dispatches the next call.

    Args:
      state: the state on the devices. It is donated: do not use it afterwards.
      step: number of steps run so far.
      remaining: steps until the end of the epoch; no call crosses it.

    Returns:
      The state after the call, and the number of steps of the call.
    """
    num_steps = self._pace.num_steps(remaining)
    started = time.monotonic()
    state, losses = self._run_steps(state, step, num_steps=num_steps)
    stopping.hold()
    self._in_flight.append((step, num_steps, losses))
    if self._pace.is_timing:
      self.wait()
      self._pace.record(num_steps, time.monotonic() - started)
      if self._pace.step_seconds is not None:
        self._observer.timed(self._pace.step_seconds)
    else:
      self.wait(max_waiting=1 + _MAX_WAITING)
    return state, num_steps

  def wait(self, *, max_waiting: int = 0) -> None:
    """Waits for calls, and reports their losses to the observer.

    Raises what `on_not_finite` raises.

    Args:
      max_waiting: how many calls, the latest ones, may still be running on
        return. A single process also reports those of them that are done; one
        of several processes must not, by the rule at the top of this file.
    """
    alone = jax.process_count() == 1
    while self._in_flight:
      first, num_steps, losses = self._in_flight[0]
      done = alone and losses['loss'].is_ready()
      if len(self._in_flight) <= max_waiting and not done:
        return
      self._in_flight.popleft()
      losses = devices.unreplicate(losses)
      for i in range(num_steps):
        step, loss = first + i + 1, float(losses['loss'][i])
        if not losses['finite'][i]:
          self._on_not_finite(step, loss)
        self._observer.step(step, loss)
