"""Compares our networks with other implementations, the oracles.

The error of a result is its largest difference, divided by the oracle's largest
value, so that a single wrong pixel is noticed.

In float64, outputs, batch statistics and input gradients must agree far better
than float32 could. In float32, which is what networks use, the error of outputs
and statistics against the oracle in float64 must be at most 1e-4, or twice that
of the oracle's own float32. The latter is needed because image pooling leaves
four values of four images, and a batch norm over these amplifies rounding
errors in both implementations.

Gradients are compared in float64 only. They are discontinuous: if rounding
moves an activation across the kink of a ReLU, or a maximum to another pixel,
all gradients before it change.
"""

import contextlib
import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.models import mtnet

BATCH = 4
TOLERANCE = 1e-4
TOLERANCE_FLOAT64 = 1e-6


def import_timm():
  """Imports timm, even if torchvision lacks its compiled operators."""
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  try:
    import torchvision  # noqa: F401
  except ImportError:
    pass
  except RuntimeError:
    # timm imports torchvision, but does not need its compiled operators. Their
    # registration fails if they are missing, so it is disabled.
    torch.library.register_fake = lambda *_, **__: lambda function: function
  return pytest.importorskip('timm', reason='needs the extra `interop`')


def cases(odd, even, *, long=()):
  """Returns cases (hw, train, differentiate) of a test with `assert_same`.

  Gradients are compared in evaluation at one size and in training at the other.

  Args:
    odd: a size (H, W).
    even: another size (H, W).
    long: those of 'evaluation' and 'training' whose gradients only the long
      tests compare. Compiling both networks in float64 takes minutes.
  """
  found = []
  for name, hw in (('odd', odd), ('even', even)):
    for train, mode in ((False, 'evaluation'), (True, 'training')):
      differentiate = train == (hw == even)
      found.append(
        pytest.param(
          hw,
          train,
          differentiate,
          marks=[pytest.mark.long] if differentiate and mode in long else [],
          id=f'{name}-{mode}',
        )
      )
  return found


def relative(ours, theirs):
  """Returns the largest difference, divided by the oracle's largest value."""
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def images(hw, seed=0):
  """Draws images (B, H, W, 3) in [-1, 1]."""
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (BATCH, *hw, 3)).astype(np.float32)


def cotangents(outputs):
  """Draws weights of the outputs, whose weighted sum is differentiated."""
  rng = np.random.default_rng(1)
  return {
    name: rng.normal(size=outputs[name].shape).astype(outputs[name].dtype)
    # Sorted, because JAX sorts the keys of dicts.
    for name in sorted(outputs)
  }


def draw(rng, shape, leaf, *, fan_in=1):
  """Draws a variable of our network or of an oracle.

  Kernels keep the scale of activations. Variables of batch norms differ clearly
  from 0 and 1.
  """
  if leaf == 'kernel':
    values = rng.normal(size=shape) * np.sqrt(1.5 / fan_in)
  elif leaf in ('scale', 'var'):
    values = rng.uniform(0.7, 1.4, shape)
  else:  # bias, mean
    values = rng.uniform(-0.3, 0.3, shape)
  return values.astype(np.float32)


# PyTorch.


def randomise_torch(module):
  """Draws every tensor of a PyTorch module."""
  import torch

  rng = np.random.default_rng(0)
  leaves = {'running_mean': 'mean', 'running_var': 'var', 'bias': 'bias'}
  with torch.no_grad():
    for name, tensor in module.state_dict().items():
      leaf = name.rpartition('.')[2]
      if leaf == 'num_batches_tracked':
        continue
      leaf = leaves.get(leaf, 'scale' if tensor.ndim == 1 else 'kernel')
      shape = tuple(tensor.shape)
      values = draw(rng, shape, leaf, fan_in=np.prod(shape[1:]))
      tensor.copy_(torch.from_numpy(values))


def _nhwc(tensor):
  values = tensor.detach().numpy()
  return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


def _from_nhwc(values):
  import torch

  if values.ndim == 4:
    values = values.transpose(0, 3, 1, 2)
  return torch.from_numpy(np.ascontiguousarray(values))


def run_torch(
  module, images, outputs_of, *, train, float64=False, differentiate=True
):
  """Runs a PyTorch module on images; returns arrays in our layout.

  Args:
    module: the oracle. Its state is restored afterwards.
    images: (B, H, W, 3).
    outputs_of: (module, (B, 3, H, W)) -> named outputs.
    train: whether to use batch statistics.
    float64: whether to compute in double precision.
    differentiate: whether to compute the gradient of the images, too.

  Returns:
    The outputs; the gradient of the images, or None; and for the name of each
    running statistic the batch's statistic, with the biased variance.
  """
  import torch

  before = {key: value.clone() for key, value in module.state_dict().items()}
  module.double() if float64 else module.float()
  module.train(train)
  values_of, hooks = {}, []
  norms = {
    name: part
    for name, part in module.named_modules()
    if isinstance(part, torch.nn.BatchNorm2d)
  }
  for name, norm in norms.items():

    def count(_, inputs, __, name=name):
      values_of[name] = inputs[0].numel() // inputs[0].shape[1]

    hooks.append(norm.register_forward_hook(count))
  x = _from_nhwc(images).to(torch.float64 if float64 else torch.float32)
  x.requires_grad_()
  outputs = outputs_of(module, x)
  ours = {name: _nhwc(value) for name, value in outputs.items()}
  if differentiate:
    weights = cotangents(ours)
    sum(
      torch.sum(value * _from_nhwc(weights[name]))
      for name, value in outputs.items()
    ).backward()
  statistics = {}
  for name, norm in norms.items():
    for leaf in ('running_mean', 'running_var'):
      key = f'{name}.{leaf}'
      after = getattr(norm, leaf).numpy().astype(np.float64)
      # In PyTorch, the momentum is the weight of the new value.
      old = before[key].numpy().astype(np.float64)
      new = (after - (1 - norm.momentum) * old) / norm.momentum
      if leaf == 'running_var':
        # PyTorch normalises by the biased variance, but stores the unbiased
        # one.
        new *= (values_of[name] - 1) / values_of[name]
      statistics[key] = new
  for hook in hooks:
    hook.remove()
  module.float().load_state_dict(before)
  return ours, _nhwc(x.grad) if differentiate else None, statistics


# Ours.


@functools.partial(
  jax.jit,
  static_argnums=(0, 1, 4, 5),
  compiler_options=fast_compile.OPTIONS,
)
def _apply(net, outputs_of, variables, images, train, differentiate):
  def outputs_and_stats(images):
    kwargs = {'mutable': ['batch_stats']} if train else {}
    # Class-net runs without a mask here.
    inputs = (images, None) if isinstance(net, mtnet.ClassNet) else (images,)
    result = net.apply(variables, *inputs, train=train, **kwargs)
    result, updates = result if train else (result, {})
    return outputs_of(*result), updates.get('batch_stats')

  if not differentiate:
    return *outputs_and_stats(images), None
  shapes, _ = jax.eval_shape(outputs_and_stats, images)

  def weighted_sum(images):
    outputs, stats = outputs_and_stats(images)
    weights = cotangents(shapes)
    total = sum(jnp.sum(outputs[name] * w) for name, w in weights.items())
    return total, (outputs, stats)

  (_, rest), grad = jax.value_and_grad(weighted_sum, has_aux=True)(images)
  return *rest, grad


def run_ours(
  net,
  variables,
  images,
  outputs_of,
  *,
  train,
  float64=False,
  differentiate=False,
):
  """Runs one of our networks on images.

  Args:
    net: a network or backbone.
    variables: its variables.
    images: (B, H, W, 3).
    outputs_of: (logits, taps) -> named outputs.
    train: whether to use batch statistics.
    float64: whether to compute in double precision.
    differentiate: whether to compute the gradient of the images, too. Compiling
      it takes longest.

  Returns:
    The outputs; the gradient of the images, or None; and for the path of each
    running statistic the batch's statistic.
  """
  dtype = np.float64 if float64 else np.float32
  context = jax.enable_x64(True) if float64 else contextlib.nullcontext()
  with context:
    net = net.clone(dtype=dtype)
    typed, images = jax.tree.map(
      lambda x: jnp.asarray(x, dtype), (variables, images)
    )
    outputs, stats, grad = jax.device_get(
      _apply(net, outputs_of, typed, images, train, differentiate)
    )
  statistics = {}
  if train:
    keep = net.bn_momentum
    for (path, after), before in zip(
      jax.tree_util.tree_leaves_with_path(stats),
      jax.tree.leaves(variables['batch_stats']),
      strict=True,
    ):
      name = '/'.join(key.key for key in path)
      after, before = (np.asarray(x, np.float64) for x in (after, before))
      new = (after - keep * before) / (1 - keep)
      statistics[f'batch_stats/{name}'] = new
  return outputs, grad, statistics


# Both.


def assert_same(run_one, run_other, tensors, images, *, train, differentiate):
  """Asserts that one of our networks agrees with an oracle.

  Args:
    run_one: `run_ours` without images, train, float64 and differentiate.
    run_other: a function for the oracle, such as `run_torch`, likewise.
    tensors: our variable -> the oracle's name; see `matching.Match`.
    images: (B, H, W, 3).
    train: whether to use batch statistics.
    differentiate: whether to compare in float64, too, with the gradient of the
      images.
  """

  def run_both(**options):
    outputs, grad, statistics = run_one(images, train=train, **options)
    theirs, their_grad, named = run_other(images, train=train, **options)
    assert bool(statistics) == train
    ours = {**outputs, **statistics}
    theirs |= {name: named[tensors[name]] for name in statistics}
    if options.get('differentiate'):
      ours['gradient'], theirs['gradient'] = grad, their_grad
    return ours, theirs

  print(f'\n{images.shape[1:3]} {"training" if train else "evaluation"}:')
  ours, theirs = run_both()
  if differentiate:
    ours64, truth = run_both(float64=True, differentiate=True)
    errors = {name: relative(ours64[name], truth[name]) for name in truth}
    print('float64:', _worst(errors))
    assert max(errors.values()) <= TOLERANCE_FLOAT64, errors
  else:
    outputs, _, named = run_other(images, train=train, float64=True)
    truth = {**outputs, **{n: named[tensors[n]] for n in ours.keys() - outputs}}
  errors = {name: relative(ours[name], truth[name]) for name in ours}
  oracle = {name: relative(theirs[name], truth[name]) for name in ours}
  print('float32:', _worst(errors))
  print("oracle's float32:", _worst(oracle))
  for name, error in errors.items():
    assert error <= max(TOLERANCE, 2 * oracle[name]), (name, error)


def _worst(errors):
  """Formats the errors; only the largest one of all statistics is included."""
  worst = {}
  for name, error in errors.items():
    key = 'statistics' if name.startswith('batch_stats') else name
    worst[key] = max(worst.get(key, 0), error)
  return ' '.join(f'{key} {value:.1e}' for key, value in worst.items())
