"""Hands steps of training to the devices, and tells of those that are done."""

import collections
import statistics
import time

import jax

from mtnet_jax.system import devices
from mtnet_jax.system import processes
from mtnet_jax.system import stopping

# Calls that may wait behind the one that runs: the devices stay busy, and the
# host does not run ahead of them.
_MOST_WAITING = 1


# Of one call. Three of them may be on their way before a loss is seen, or
# SIGTERM heard.
_SECONDS = 0.25

_MOST = 32

# Calls by which steps are timed, after the first, which waits for the compiler.
_TIMED = 3

# Calls of a step each, whose time is the host's, too; then of as many steps as
# it allows.
_ROUNDS = 2


class Calls:
  """The calls of a stage's steps, of which some are on their way.

  Args:
    take: (state, step, count=) -> state, losses, as `trainer.Trainer.steps`;
      it may return before the devices are done.
    pace: `calls.Pace` of the stage.
    observer: told of every step, and of a step's time; see
      `progress.Observer`.
    went_wrong: (step, loss), called at a step whose loss or gradient was not
      finite; it raises.
  """

  def __init__(self, take, *, pace, observer, went_wrong):
    self._take, self._pace = take, pace
    self._observer, self._went_wrong = observer, went_wrong
    self._in_flight = collections.deque()

  def hand_over(self, state, step, left):
    """Hands over steps from that number on, as many as suit of those left.

    Returns:
      The state after them, and how many they are.
    """
    count = self._pace.at_once(left)
    started = time.monotonic()
    state, losses = self._take(state, step, count=count)
    stopping.hold()
    self._in_flight.append((step, count, losses))
    if self._pace.times:
      self.settle()
      self._pace.took(count, time.monotonic() - started)
      if self._pace.step_seconds is not None:
        self._observer.timed(self._pace.step_seconds)
    else:
      self.settle(most_waiting=1 + _MOST_WAITING)
    return state, count

  def settle(self, *, most_waiting=0):
    """Looks at the losses of steps, and tells of them.

    Args:
      most_waiting: so many calls, the last ones, are not waited for. Alone, a
        process looks at those of them that are done, too; several would find
        others done, and one that ends by what it sees must leave none behind
        in a call.

    Raises:
      What `went_wrong` does.
    """
    alone = jax.process_count() == 1
    while self._in_flight:
      first, count, losses = self._in_flight[0]
      done = alone and losses['loss'].is_ready()
      if len(self._in_flight) <= most_waiting and not done:
        return
      self._in_flight.popleft()
      losses = devices.unreplicate(losses)
      for i in range(count):
        step, loss = first + i + 1, float(losses['loss'][i])
        if not losses['finite'][i]:
          self._went_wrong(step, loss)
        self._observer.step(step, loss)


def most(config):
  """The most steps that one call can be given: of the program that is compiled.

  1 is a program without a loop, which may round otherwise. On CPUs, where a
  call is short beside a step, it is the faster one.

  Args:
    config: its `steps_at_once`, or 0 for what suits the devices.
  """
  if config.steps_at_once:
    return config.steps_at_once
  return 1 if jax.default_backend() == 'cpu' else _MOST


class Pace:
  """Times the first calls of a stage and says how many steps the next take.

  Args:
    config: as in `most`; a number in it is taken as it is.

  Attributes:
    most: of `most`.
    step_seconds: of one step, on the first process; None until it is known.
  """

  def __init__(self, config):
    self.most = most(config)
    self.step_seconds = None
    self._chosen = bool(config.steps_at_once)
    self._at_once = self.most if self._chosen else 1
    self._rounds = 1 if self._chosen or self.most == 1 else _ROUNDS
    self._timed = []

  def at_once(self, left):
    """Steps of the next call, of so many that are left."""
    return min(left, self._at_once)

  @property
  def times(self):
    """Whether `took` is to be told of the next call."""
    return self.step_seconds is None

  def took(self, steps, seconds):
    """Tells of a call that was waited for. All processes do, of each call."""
    self._timed.append(seconds / steps)
    if len(self._timed) <= _TIMED:
      return
    found = processes.on_first(lambda: statistics.median(self._timed[1:]))
    if not self._chosen:
      self._at_once = min(max(int(_SECONDS / found), 1), self.most)
    self._rounds -= 1
    if self._rounds:
      self._timed = self._timed[:1]
    else:
      self.step_seconds = found
