"""Counts FLOPs and bytes of each kernel of a compiled program, from its text.

Every operation of the entry computation and of its loops is a kernel that reads
its operands and writes its result once. A fused computation may read less than
a whole operand: if it only slices the operand, only the slice counts.
"""

import dataclasses
import math
import re

_BYTES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  's16': 2,
  'u16': 2,
  'bf16': 2,
  'f16': 2,
  's32': 4,
  'u32': 4,
  'f32': 4,
  's64': 8,
  'u64': 8,
  'f64': 8,
}
_SHAPE = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\]')
_COMPUTATION = re.compile(r'^(ENTRY )?%(\S+) \(.*\{$')
_LINE = re.compile(r'^\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$')
_NAME = re.compile(r'%([\w.-]+)')
# Operations that are not kernels.
_FREE = {
  'after-all',
  'bitcast',
  'constant',
  'get-tuple-element',
  'parameter',
  'partition-id',
  'replica-id',
  'tuple',
}


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One operation of a program.

  Attributes:
    name: its name in the program.
    source: JAX's name stack.
    times: how often it runs.
    flops: FLOPs of products and convolutions in one run.
    bytes: bytes read and written in one run.
  """

  name: str
  source: str
  times: int
  flops: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class _Operation:
  name: str
  type: str
  code: str
  operands: tuple
  rest: str

  def called(self, attribute='calls'):
    match = re.search(rf'\b{attribute}=%([\w.-]+)', self.rest)
    return match and match[1]


def kernels(text):
  """Returns all `Kernel`s of a program.

  Args:
    text: text of the compiled program, from `jax.stages.Compiled.as_text`.

  Raises:
    ValueError: the number of iterations of a loop is not known.
  """
  return list(_walk(*_parse(text), 1, _Strict()))


def readable_kernels(text):
  """Returns the `kernels` of a program as far as its text can be read.

  Another version of XLA may write loops or products differently. The rest of
  the program is counted anyway.

  Args:
    text: as in `kernels`.

  Returns:
    The kernels, the number of loops that were counted as one iteration because
    their number of iterations is not known, and the number of FLOP or byte
    counts that were left out.
  """
  lenient = _Lenient()
  readable = list(_walk(*_parse(text), 1, lenient))
  return readable, lenient.loops, lenient.left_out


class _Strict:
  """Raises an error if something cannot be counted."""

  def iterations(self, operation):
    match = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
    if not match:
      raise ValueError(
        f'the number of iterations of {operation.name} is not known.'
      )
    return int(match[1])

  def count(self, function, *arguments):
    return function(*arguments)


class _Lenient(_Strict):
  """Counts an unknown loop as one iteration, and any other failure as 0.

  Attributes:
    loops: number of unknown loops.
    left_out: number of other failures.
  """

  def __init__(self):
    self.loops = self.left_out = 0

  def iterations(self, operation):
    try:
      return super().iterations(operation)
    except ValueError:
      self.loops += 1
      return 1

  def count(self, function, *arguments):
    try:
      return function(*arguments)
    except (LookupError, TypeError, ValueError):
      self.left_out += 1
      return 0


def _parse(text):
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if start := _COMPUTATION.match(line):
      current = computations[start[2]] = {}
      entry = start[2] if start[1] else entry
    elif match := _LINE.match(line):
      name, type_, code, rest = match.groups()
      inside, rest = _split_at_closing_bracket(rest)
      operands = (
        (int(inside),) if code == 'parameter' else tuple(_NAME.findall(inside))
      )
      current[name] = _Operation(name, type_, code, operands, rest)
  return computations, entry


def _split_at_closing_bracket(text):
  depth = 1
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return text[:i], text[i + 1 :]
  raise ValueError(f'no closing bracket: {text[:80]}')


def _shapes(type_):
  return [
    (name, tuple(int(size) for size in sizes.split(',') if size))
    for name, sizes in _SHAPE.findall(type_)
    if name in _BYTES
  ]


def _bytes(type_):
  return _bytes_of(_shapes(type_))


def _bytes_of(shapes):
  return sum(_BYTES[name] * math.prod(shape) for name, shape in shapes)


def _walk(computations, name, times, counter):
  operations = computations[name]
  for operation in operations.values():
    if operation.code == 'while':
      body = operation.called('body')
      iterations = counter.iterations(operation)
      yield from _walk(computations, body, times * iterations, counter)
    elif operation.code == 'call':
      yield from _walk(
        computations, operation.called('to_apply'), times, counter
      )
    elif operation.code not in _FREE:
      source = re.search(r'op_name="([^"]*)"', operation.rest)
      yield Kernel(
        name=operation.name,
        source=source[1] if source else '',
        times=times,
        flops=counter.count(_flops, operation, operations, computations),
        bytes=counter.count(_read, operation, operations, computations)
        + counter.count(_written, operation, computations),
      )


def _read(operation, operations, computations):
  inner = computations.get(operation.called())
  total = 0
  for number, operand in enumerate(operation.operands):
    whole = _bytes(operations[operand].type)
    total += min(whole, _read_inside(inner, number)) if inner else whole
  return total


def _read_inside(inner, number):
  """Returns the bytes of a parameter that a fusion reads; inf for all."""
  (name,) = (
    operation.name
    for operation in inner.values()
    if operation.code == 'parameter' and operation.operands == (number,)
  )
  return _read_of(inner, name)


def _read_of(inner, name):
  total = 0
  for user in inner.values():
    if name not in user.operands:
      continue
    if user.code in ('slice', 'dynamic-slice', 'gather'):
      total += _bytes(user.type)
    elif user.code == 'bitcast':
      total += _read_of(inner, user.name)
    elif user.code != 'dynamic-update-slice' or user.operands[0] != name:
      return math.inf
  return total


def _written(operation, computations):
  if operation.code == 'custom-call':
    # The last result may be the library's workspace, an array of bytes.
    results = _shapes(operation.type)
    if len(results) > 1 and results[-1][0] in ('s8', 'u8'):
      results = results[:-1]
    return _bytes_of(results)
  inner = computations.get(operation.called(), {})
  for update in inner.values():
    # The update is in place: only its own bytes are written.
    if update.code == 'dynamic-update-slice' and _bytes(update.type) == _bytes(
      operation.type
    ):
      return _bytes(inner[update.operands[1]].type)
  return _bytes(operation.type)


def _flops(operation, operations, computations):
  inner = computations.get(operation.called())
  if inner:
    return sum(_flops(x, inner, computations) for x in inner.values())
  target = re.search(r'custom_call_target="([^"]*)"', operation.rest)
  target = target[1] if target else ''
  if operation.code == 'dot' or 'gemm' in target or 'matmul' in target:
    return _flops_of_product(operation, operations)
  if operation.code == 'convolution' or 'conv' in target.lower():
    return _flops_of_convolution(operation, operations, target)
  return 0


def _flops_of_product(operation, operations):
  contracted = re.search(
    r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)', operation.rest
  )
  _, left = _shapes(operations[operation.operands[0]].type)[0]
  _, out = _shapes(operation.type)[0]
  return (
    2
    * math.prod(out)
    * math.prod(
      left[int(axis.strip('"'))] for axis in contracted[1].split(',') if axis
    )
  )


def _flops_of_convolution(operation, operations, target):
  """Returns 2 x output pixels x kernel size; gradients cost the same."""
  sides = [
    _shapes(operations[operand].type)[0][1]
    for operand in operation.operands[:2]
  ]
  _, out = _shapes(operation.type)[0]
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', operation.rest)
  if 'BackwardFilter' in target:
    kernel, pixels = out, sides[1]
  elif 'BackwardInput' in target:
    kernel, pixels = sides[1], sides[0]
  else:
    kernel, pixels = sides[1], out
  features = pixels[labels[3].index('f')]
  return 2 * math.prod(pixels) // features * math.prod(kernel)
