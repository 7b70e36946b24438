"""Kinds of kernels, by the layers that they compute."""

import re


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
