"""The pulmonary nodules of LIDC-IDRI as a TensorFlow Datasets dataset.

Importing this package registers `lidc_nodules`, and makes `import pylidc` work
on today's Python:

    import tfds_lidc
    import tensorflow_datasets as tfds
    train = tfds.data_source('lidc_nodules/phantom', split='train')

Neither TensorFlow nor JAX is imported, nor pylidc itself.
"""

from tfds_lidc.nodules import annotations

annotations.install_shim()

# Registers the dataset. TFDS refuses a second import under another name.
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder  # noqa: E402, F401
