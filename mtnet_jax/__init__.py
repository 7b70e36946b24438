"""MT-Net in JAX/Flax: pulmonary nodule segmentation and classification."""

__version__ = '0.1.0'
