"""Folds batch norms into the convolutions before them, for prediction."""

import torch
from torch import nn


def fold_batch_norms(net: nn.Module, *example: torch.Tensor) -> None:
  """Folds each batch norm into the convolution before it, in place.

  The network has fewer operations then, and exports faster.

  Args:
    net: network in evaluation mode.
    *example: arguments of a call, which is run to find the pairs.

  Raises:
    ValueError: the input of a batch norm is not the output of a convolution, or
      the call does not reach the batch norm.
  """
  pairs = _pairs(net, example)
  for norm, conv in pairs.items():
    conv.weight, conv.bias = nn.utils.fuse_conv_bn_weights(
      conv.weight,
      conv.bias,
      norm.running_mean,
      norm.running_var,
      norm.eps,
      norm.weight,
      norm.bias,
    )
  for parent in list(net.modules()):
    for name, module in parent.named_children():
      if isinstance(module, nn.BatchNorm2d):
        if module not in pairs:
          raise ValueError(f'{name} does not follow a convolution')
        setattr(parent, name, nn.Identity())


def _pairs(net, example):
  """Returns {batch norm: the convolution before it}."""
  convs, pairs = {}, {}

  def after_conv(conv, _, output):
    # Keeping the output alive keeps its id unique.
    convs[id(output)] = conv, output

  def before_norm(norm, inputs):
    if id(inputs[0]) in convs:
      pairs[norm], _ = convs[id(inputs[0])]

  handles = []
  for module in net.modules():
    if isinstance(module, nn.Conv2d):
      handles.append(module.register_forward_hook(after_conv))
    elif isinstance(module, nn.BatchNorm2d):
      handles.append(module.register_forward_pre_hook(before_norm))
  try:
    with torch.inference_mode():
      net(*example)
  finally:
    for handle in handles:
      handle.remove()
  return pairs
