"""Other people's networks, to compare ours with.

How near is near: the largest difference over the oracle's largest value, so
that a single wrong pixel shows.

In float64 outputs, batch statistics and input gradients must agree far below
any float32's noise. In float32, which is what runs, outputs and statistics
must agree with the oracle's float64 to 1e-4, or as well as twice the oracle's
own float32 does: batch norm over the four values that image pooling leaves of
four images amplifies rounding on both sides. Gradients are compared in float64
only: they are piecewise, and where rounding moves one activation across the
kink of a ReLU, or one maximum to the neighbouring pixel, all behind it jumps.
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
  """timm, also where torchvision came without its compiled operators."""
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  try:
    import torchvision  # noqa: F401
  except ImportError:
    pass
  except RuntimeError:
    # Only its Python half is there. timm wants to import it, and does not
    # need its operators: let their registration do nothing.
    torch.library.register_fake = lambda *_, **__: lambda function: function
  return pytest.importorskip('timm', reason='needs the extra `interop`')


def cases(odd, even, *, long=()):
  """Cases (hw, train, differentiate) of a test by `assert_same`.

  There are gradients of one size in evaluation, and of the other in training.

  Args:
    odd, even: two sizes (H, W).
    long: of 'evaluation' and 'training', whose gradients the long tests have:
      in float64 and of both sides, they take minutes to compile.
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
  """Largest difference over the oracle's largest value."""
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def images(hw, seed=0):
  """(B, H, W, 3), as the networks receive them."""
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (BATCH, *hw, 3)).astype(np.float32)


def cotangents(outputs):
  """Random weights: gradients are those of the outputs' weighted sum."""
  rng = np.random.default_rng(1)
  return {
    name: rng.normal(size=outputs[name].shape).astype(outputs[name].dtype)
    # Trees of JAX come back sorted.
    for name in sorted(outputs)
  }


def draw(rng, shape, leaf, *, fan_in=1):
  """A random variable of ours or an oracle's.

  Kernels keep the size of what passes them; batch norms are far from 0 and 1.
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
  """What a PyTorch module makes of images, in our layout.

  Args:
    module: the oracle; as it was afterwards.
    images: (B, H, W, 3).
    outputs_of: (module, (B, 3, H, W)) -> named outputs.
    train: with the batch's statistics.
    float64: in double precision.
    differentiate: also by the images.

  Returns:
    Outputs; their gradient by the images, or None; name of a running
    statistic -> the batch's, with the biased variance.
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
      # PyTorch's momentum is the share of the new value.
      old = before[key].numpy().astype(np.float64)
      new = (after - (1 - norm.momentum) * old) / norm.momentum
      if leaf == 'running_var':
        # PyTorch normalises by the biased variance and keeps the unbiased.
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
    # Class-net without its mask.
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
  """What a network of ours makes of images.

  Args:
    net: a network or backbone.
    variables: of it.
    images: (B, H, W, 3).
    outputs_of: (what the network returns) -> named outputs.
    train: with the batch's statistics.
    float64: in double precision.
    differentiate: also by the images; it takes longest to compile.

  Returns:
    Outputs; their gradient by the images, or None; path of a running
    statistic -> the batch's.
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
  """Compares a network of ours with an oracle.

  Args:
    run_one: `run_ours` of all but images and the three options.
    run_other: the oracle's, such as `run_torch`, likewise.
    tensors: our variable -> the oracle's name; see `matching.Match`.
    images: (B, H, W, 3).
    train: with the batch's statistics.
    differentiate: also in float64, with the gradient by the images.
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
  """Figures in short, the statistics' worst for all."""
  worst = {}
  for name, error in errors.items():
    key = 'statistics' if name.startswith('batch_stats') else name
    worst[key] = max(worst.get(key, 0), error)
  return ' '.join(f'{key} {value:.1e}' for key, value in worst.items())
