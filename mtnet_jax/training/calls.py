"""Dispatches training steps to the devices, several of them per call.

A call costs the host time for each of the arrays of a state, on every device:
more than a step of a fast GPU may take. So steps share a call, in a loop on the
devices. How many of them share one changes no bit of the result.

All processes of a run must wait for the same calls: every step sums over all
devices, so that a process that stops early leaves the others in a step that
never ends. What a process waits for therefore depends on the number of calls
alone, and never on how far its own devices have come.
"""

import collections
import statistics
import time

import jax

from mtnet_jax.system import devices
from mtnet_jax.system import processes
from mtnet_jax.system import stopping

# Calls that may wait behind the one that runs: the devices stay busy, and the
# host does not run ahead of them.
_MAX_WAITING = 1
# A call takes about this long. Three of them may be on their way before a loss
# is seen, or SIGTERM is heard.
_SECONDS_PER_CALL = 0.25
_MAX_STEPS_PER_CALL = 32
# Calls that are timed, after a first one, which waits for the compiler.
_TIMED_CALLS = 3
# Rounds of timed calls: of one step each, whose time includes the host's, and
# then of as many steps as the first round allows.
_ROUNDS = 2


def max_steps(config):
  """Steps for which the compiled program of a call has room.

  A program with room for one has no loop, and may round differently. It is the
  faster one on CPUs, where a call is short beside a step.

  Args:
    config: its `steps_per_call`, or 0 for a number that suits the devices.
  """
  if config.steps_per_call:
    return config.steps_per_call
  return 1 if jax.default_backend() == 'cpu' else _MAX_STEPS_PER_CALL


class Pace:
  """How many steps share a call, from the time that the first calls take.

  Args:
    config: as in `max_steps`; a number in it is used from the start.

  Attributes:
    max_steps: of `max_steps`.
    step_seconds: of one step, on the first process; None until it is known.
  """

  def __init__(self, config):
    self.max_steps = max_steps(config)
    self.step_seconds = None
    self._fixed = bool(config.steps_per_call)
    self._num_steps = self.max_steps if self._fixed else 1
    self._rounds = 1 if self._fixed or self.max_steps == 1 else _ROUNDS
    self._seconds = []

  def num_steps(self, remaining):
    """Steps of the next call, where so many remain of the epoch."""
    return min(remaining, self._num_steps)

  @property
  def is_timing(self):
    """Whether the next call must be waited for and reported by `record`."""
    return self.step_seconds is None

  def record(self, num_steps, seconds):
    """Records the time of a call; every process records every timed call."""
    self._seconds.append(seconds / num_steps)
    if len(self._seconds) <= _TIMED_CALLS:
      return
    found = processes.on_first(lambda: statistics.median(self._seconds[1:]))
    if not self._fixed:
      self._num_steps = min(
        max(int(_SECONDS_PER_CALL / found), 1), self.max_steps
      )
    self._rounds -= 1
    if self._rounds:
      self._seconds = self._seconds[:1]
    else:
      self.step_seconds = found


class Calls:
  """The calls of a stage, of which some are still running.

  Args:
    run_steps: (state, step, num_steps=) -> state, losses, as
      `trainer.Trainer.steps`; it may return before the devices are done.
    pace: `Pace` of the stage.
    observer: is notified of every step, and of a step's time; see
      `progress.Observer`.
    on_not_finite: (step, loss), called at a step whose loss or gradient is not
      finite; it raises.
  """

  def __init__(self, run_steps, *, pace, observer, on_not_finite):
    self._run_steps, self._pace = run_steps, pace
    self._observer, self._on_not_finite = observer, on_not_finite
    self._in_flight = collections.deque()

  def dispatch(self, state, step, remaining):
    """Dispatches one call, from that step on.

    Args:
      state: `step.TrainState`, on the devices; it must not be used afterwards.
      step: number of steps taken so far.
      remaining: steps until the end of the epoch, where a call ends, too.

    Returns:
      The state after the call, and its number of steps.
    """
    num_steps = self._pace.num_steps(remaining)
    started = time.monotonic()
    state, losses = self._run_steps(state, step, num_steps=num_steps)
    stopping.hold()
    self._in_flight.append((step, num_steps, losses))
    if self._pace.is_timing:
      self.wait()
      self._pace.record(num_steps, time.monotonic() - started)
      if not self._pace.is_timing:
        self._observer.timed(self._pace.step_seconds)
    else:
      self.wait(max_waiting=1 + _MAX_WAITING)
    return state, num_steps

  def wait(self, *, max_waiting=0):
    """Waits for calls, and reports their losses to the observer.

    Args:
      max_waiting: this many calls, the last ones, may go on running. A single
        process reports those of them that are done already, too.

    Raises:
      What `on_not_finite` raises.
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
