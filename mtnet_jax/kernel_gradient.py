"""The kernel gradient of a plain convolution, as matrix products.

A tap's gradient is a product of the pixels that meet it, over all pixels: of
few channels, too few for a fast product. Those of a kernel's row together, side
by side, are `k` times as many, and the rows of an image lie one after the other
as they are. XLA's CPU backend takes twice as long.
"""

from jax import lax
import jax.numpy as jnp

from mtnet_jax import windows


def of_plain_conv(x, grad, *, size, pad):
  """Gradient by the kernel of a convolution with stride 1.

  Args:
    x: (B, H, W, C) float32, or wider.
    grad: (B, H + 2 pad - size + 1, W + 2 pad - size + 1, F), of the output.
    size: kernel side.
    pad: pixels of zeros on each side.

  Returns:
    (size, size, C, F).
  """
  height, width, features = grad.shape[1:]
  padding = (pad, pad, 0)
  x = windows.pad(x, padding, padding)

  def of_image(index):
    """(size, size * C, F); the image and its views stay in the cache."""
    pixels, pixels_grad = (
      lax.dynamic_index_in_dim(batch, index, keepdims=False)
      for batch in (x, grad)
    )
    views = [pixels[:, j : j + width] for j in range(size)]
    # Written once; fused, it would be made anew for each row of the kernel.
    beside = lax.optimization_barrier(jnp.concatenate(views, -1))
    pixels_grad = pixels_grad.reshape(-1, features)
    return jnp.stack(
      [
        beside[i : i + height].reshape(-1, beside.shape[-1]).T @ pixels_grad
        for i in range(size)
      ]
    )

  total = lax.fori_loop(
    1, len(x), lambda index, sum_: sum_ + of_image(index), of_image(0)
  )
  return total.reshape(size, size, x.shape[-1], features)
