"""Groups kernels by the layers that they compute."""

import re


def kind_of(kernel):
  """Returns the kind of a kernel, such as 'depthwise, backward'.

  Args:
    kernel: an `hlo.Kernel`.
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
