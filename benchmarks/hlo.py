"""Counts the work of a compiled program, kernel by kernel, from its text.

Every operation of the entry computation, and of its loops, is a kernel that
reads its operands and writes its result once. Of a fused one only what is read
inside counts: a slice, where the operand is only sliced.
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
# No kernels.
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
  """One operation.

  Attributes:
    name: in the program.
    source: JAX's name stack.
    times: how often it runs.
    flops: of products and convolutions, once.
    bytes: read and written, once.
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
    found = re.search(rf'\b{attribute}=%([\w.-]+)', self.rest)
    return found and found[1]


def kernels(text):
  """All `Kernel`s of a program.

  Args:
    text: of the compiled program, as `jax.stages.Compiled.as_text` gives it.

  Raises:
    ValueError: a loop whose number of turns is not known.
  """
  return list(_walk(*_parse(text), 1, _Strict()))


def readable_kernels(text):
  """`kernels`, of whatever can be read of a program.

  Another version of XLA may write a loop or a product in another way, which is
  not worth losing the other figures for.

  Args:
    text: as in `kernels`.

  Returns:
    The kernels, and how many loops were counted once because nobody knows how
    often they turn, and how many flops or bytes of operations are left out.
  """
  lenient = _Lenient()
  found = list(_walk(*_parse(text), 1, lenient))
  return found, lenient.loops, lenient.left_out


class _Strict:
  """Raises where something cannot be counted."""

  def turns(self, operation):
    turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
    if not turns:
      raise ValueError(f'nobody knows how often {operation.name} turns.')
    return int(turns[1])

  def count(self, function, *arguments):
    return function(*arguments)


class _Lenient(_Strict):
  """Takes a loop for one turn, and other things for nothing, and counts both.

  Attributes:
    loops, left_out: how many.
  """

  def __init__(self):
    self.loops = self.left_out = 0

  def turns(self, operation):
    try:
      return super().turns(operation)
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
    elif found := _LINE.match(line):
      name, type_, code, rest = found.groups()
      inside, rest = _split_at_the_bracket(rest)
      operands = (
        (int(inside),) if code == 'parameter' else tuple(_NAME.findall(inside))
      )
      current[name] = _Operation(name, type_, code, operands, rest)
  return computations, entry


def _split_at_the_bracket(text):
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


def _walk(computations, name, times, care):
  operations = computations[name]
  for operation in operations.values():
    if operation.code == 'while':
      body = operation.called('body')
      turns = care.turns(operation)
      yield from _walk(computations, body, times * turns, care)
    elif operation.code == 'call':
      yield from _walk(computations, operation.called('to_apply'), times, care)
    elif operation.code not in _FREE:
      source = re.search(r'op_name="([^"]*)"', operation.rest)
      yield Kernel(
        name=operation.name,
        source=source[1] if source else '',
        times=times,
        flops=care.count(_flops, operation, operations, computations),
        bytes=care.count(_read, operation, operations, computations)
        + care.count(_written, operation, computations),
      )


def _read(operation, operations, computations):
  inner = computations.get(operation.called())
  total = 0
  for number, operand in enumerate(operation.operands):
    whole = _bytes(operations[operand].type)
    total += min(whole, _read_inside(inner, number)) if inner else whole
  return total


def _read_inside(inner, number):
  """Bytes of a parameter that a fused computation reads; inf for all."""
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
    # A library's room to work in comes last, as bytes.
    results = _shapes(operation.type)
    if len(results) > 1 and results[-1][0] in ('s8', 'u8'):
      results = results[:-1]
    return _bytes_of(results)
  inner = computations.get(operation.called(), {})
  for update in inner.values():
    # In place: what is around the update stays.
    if update.code == 'dynamic-update-slice' and _bytes(update.type) == _bytes(
      operation.type
    ):
      return _bytes(inner[update.operands[1]].type)
  return _bytes(operation.type)


def _flops(operation, operations, computations):
  inner = computations.get(operation.called())
  if inner:
    return sum(_flops(one, inner, computations) for one in inner.values())
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
  """Every output pixel meets the kernel once, in the gradients, too."""
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
