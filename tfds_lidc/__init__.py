"""Provides the pulmonary nodules of LIDC-IDRI as a TFDS dataset.

Importing this package registers `lidc_nodules`, and makes `import pylidc` work
on current Python versions:

    import tfds_lidc
    import tensorflow_datasets as tfds
    train = tfds.data_source('lidc_nodules/phantom', split='train')

The import loads neither TensorFlow nor JAX nor pylidc.
"""

from tfds_lidc.nodules import annotations

annotations.install_shim()

# Registers the dataset. TFDS rejects a second import under another name.
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder  # noqa: E402, F401
