"""Kernels of a program, and their kinds by the layers that they compute."""

import re
from unittest import mock

from benchmarks import hlo

_LOOP = re.compile(r'^\s+(?:ROOT )?%\S+ = .* while\(')


def kernels_of(text):
  """`hlo.kernels`, of whatever can be read of a program.

  A visit to a card is not the time to learn that its compiler writes a loop or
  a product in another way.

  Args:
    text: of the compiled program.

  Returns:
    The kernels, and how many loops were counted once because nobody knows how
    often they turn, and how many operations whose flops or bytes are left out.
  """
  lines, loops, left_out = [], 0, 0
  for line in text.splitlines():
    if _LOOP.match(line) and '"known_trip_count":{"n"' not in line:
      loops += 1
      line += ', backend_config={"known_trip_count":{"n":"1"}}'
    lines.append(line)

  def counted(count):
    def safe(*arguments):
      nonlocal left_out
      try:
        return count(*arguments)
      except Exception:
        left_out += 1
        return 0

    return safe

  with (
    mock.patch.object(hlo, '_flops', counted(hlo._flops)),
    mock.patch.object(hlo, '_read', counted(hlo._read)),
    mock.patch.object(hlo, '_written', counted(hlo._written)),
  ):
    return hlo.kernels('\n'.join(lines)), loops, left_out


def kind_of(kernel):
  """What a kernel belongs to.

  Args:
    kernel: `hlo.Kernel`.

  Returns:
    Such as 'depthwise, backward'.
  """
  if not re.search(r'/(jvp|transpose)\(', kernel.source):
    return 'optimizer and types'
  which = 'backward' if '/transpose(' in kernel.source else 'forward'
  if kernel.flops:
    return f'products, {which}'
  for name, kind in ((r'depthwise/', 'depthwise'), (r'bn\d*/', 'batch norm')):
    if re.search(name, kernel.source):
      return f'{kind}, {which}'
  return f'others, {which}'
