"""Hands steps of training to the devices, and tells of those that are done."""

import collections
import time

import jax

from mtnet_jax import parallel
from mtnet_jax import stopping

# Calls that may wait behind the one that runs: the devices stay busy, and the
# host does not run ahead of them.
_MOST_WAITING = 1


class Calls:
  """The calls of a stage's steps, of which some are on their way.

  Args:
    take: (state, step, count=) -> state, losses, as `train.Trainer.steps`;
      it may return before the devices are done.
    pace: `pace.Pace` of the stage.
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
      losses = parallel.unreplicate(losses)
      for i in range(count):
        step, loss = first + i + 1, float(losses['loss'][i])
        if not losses['finite'][i]:
          self._went_wrong(step, loss)
        self._observer.step(step, loss)
