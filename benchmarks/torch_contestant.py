"""The PyTorch networks as contestants.

They have the same layers, losses and optimizer as ours, in the memory format
channels_last. `torch.compile` is optional; bfloat16 is by autocast.
"""

import contextlib

import torch
from torch.nn import functional

from mtnet_jax.inference.torch import deeplab
from mtnet_jax.inference.torch import xception

# The second call of a compiled function may still compile.
_WARM_UP = 3


def make_net(net_name):
  """Makes the PyTorch counterpart of one of `problem.NETS`."""
  if net_name == 'class':
    return xception.ClassNet()
  return deeplab.DeepLabV3Plus(maps=1 if net_name == 'fine' else 0)


def hybrid_loss(logits, mask, *, rank_weight=0.02, top_k=20, margin=0.3):
  """Computes the mean of `mtnet_jax.losses.hybrid_loss` of sigmoid(logits)."""
  probs = logits.float().sigmoid().flatten(1)
  mask = mask.flatten(1)
  dice = 1 - 2 * (probs * mask).sum(1) / ((probs + mask).sum(1) + 1e-5)
  # Errors lie in [0, 1], so -1 marks pixels of the other region.
  background = torch.where(mask > 0.5, -1.0, probs).topk(top_k, 1).values
  nodule = torch.where(mask > 0.5, 1 - probs, -1.0).topk(top_k, 1).values
  excess = background[:, :, None] + nodule[:, None] - 1 + margin
  real = (background >= 0)[:, :, None] & (nodule >= 0)[:, None]
  rank = (excess.relu() * real).sum((1, 2)) / top_k**2
  return (dice + rank_weight * rank).mean()


def loss_of(net_name, logits, target):
  """Computes the mean loss of a batch, as in training."""
  if net_name == 'class':
    return functional.binary_cross_entropy_with_logits(logits.float(), target)
  return hybrid_loss(logits, target)


def tensor(values, device='cpu'):
  """Converts a NumPy array (B, H, W, C) to a tensor (B, C, H, W)."""
  values = torch.from_numpy(values.copy())
  if values.ndim == 4:
    values = values.permute(0, 3, 1, 2)
  return values.to(device)


class Contestant:
  """One network at the paper's size.

  Calls are asynchronous on a GPU; `wait` waits for them.

  Args:
    net_name: one of `problem.NETS`.
    problem: the `problem.Problem`.
    mode: 'forward' (evaluation) or 'step' (forward, backward, Adam).
    dtype: 'float32' or 'bfloat16', by autocast.
    compiled: whether to compile the network and its loss as one function by
      `torch.compile`. The constructor compiles it, not the first call.

  Attributes:
    uncompiled: why this contestant replaces one that cannot be compiled, set by
      the caller; None by default.
  """

  def __init__(
    self, net_name, problem, *, mode, dtype='float32', compiled=False
  ):
    torch.manual_seed(0)
    self.uncompiled = None
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    net = make_net(net_name).to(self._device, memory_format=torch.channels_last)
    self._net = net.train(mode == 'step')
    self._inputs = [tensor(x, self._device) for x in problem.inputs(net_name)]
    self._inputs = [
      x.contiguous(memory_format=torch.channels_last) for x in self._inputs
    ]
    self._target = tensor(problem.target(net_name), self._device)
    autocast = (
      contextlib.nullcontext
      if dtype == 'float32'
      else lambda: torch.autocast(self._device, torch.bfloat16)
    )

    def logits(*inputs):
      with autocast():
        outputs = net(*inputs)
      # Class-net also returns its activation map.
      return outputs[0] if net_name == 'class' else outputs

    def loss(target, *inputs):
      return loss_of(net_name, logits(*inputs), target)

    if mode == 'step':
      # The fused implementation makes one pass over the parameters.
      self._tx = torch.optim.Adam(net.parameters(), 1e-4, fused=True)
      self._run, self._function = self._step, loss
    else:
      self._run, self._function = self._forward, logits
    if compiled:
      self._function = torch.compile(self._function)
      for _ in range(_WARM_UP):
        self()
      self.wait()
    if self._device == 'cuda':
      # The peak excludes compilation and the search for algorithms.
      torch.cuda.reset_peak_memory_stats()

  def _forward(self):
    with torch.inference_mode():
      return self._function(*self._inputs)

  def _step(self):
    self._tx.zero_grad(set_to_none=True)
    loss = self._function(self._target, *self._inputs)
    loss.backward()
    self._tx.step()
    return loss

  def __call__(self):
    """Runs the function once, and returns its result."""
    return self._run().detach()

  def wait(self):
    """Waits until all calls are done."""
    if self._device == 'cuda':
      torch.cuda.synchronize()

  def figures(self):
    """Returns what the contestant costs, besides its time.

    Returns:
      A dict.
        peak_bytes: peak memory of a GPU's tensors; None on a CPU.
        uncompiled: as in the attributes.
    """
    on_gpu = self._device == 'cuda'
    return {
      'peak_bytes': torch.cuda.max_memory_allocated() if on_gpu else None,
      'uncompiled': self.uncompiled,
    }
