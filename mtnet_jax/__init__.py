"""MT-Net in JAX/Flax: pulmonary nodule segmentation and classification.

model = mtnet_jax.load('runs/demo')
model.predict(hu, pixel_spacing_mm)
"""

from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
  from mtnet_jax.inference.bundles import load as load

__version__ = '0.2.0'


def __getattr__(name: str) -> Any:
  # Importing JAX takes seconds, and only `load` needs it.
  if name == 'load':
    from mtnet_jax.inference import bundles

    return bundles.load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
