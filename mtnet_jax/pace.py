"""How many steps of training the devices take per call of the host's.

A call costs the host time for each of the arrays of a state, on every device:
more than a step of a fast GPU may take. Steps that are taken in a loop on the
devices share one call. How many of a program's most do changes no bit.
"""

import statistics

import jax

from mtnet_jax import processes

# Of one call. Three of them may be on their way before a loss is seen, or
# SIGTERM heard.
_SECONDS = 0.25
_MOST = 32
# Calls by which steps are timed, after the first, which waits for the compiler.
_TIMED = 3
# Calls of a step each, whose time is the host's, too; then of as many steps as
# it allows.
_ROUNDS = 2


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
