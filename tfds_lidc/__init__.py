"""The pulmonary nodules of LIDC-IDRI as a TensorFlow Datasets dataset.

Importing this package registers `lidc_nodules`, and makes `import pylidc` work
on today's Python:

    import tfds_lidc
    import tensorflow_datasets as tfds
    train = tfds.data_source('lidc_nodules/phantom', split='train')

Neither TensorFlow nor JAX is imported, nor pylidc itself.
"""

import warnings

from tfds_lidc import annotations

annotations.install_shim()

# `python -m tfds_lidc.cohort` runs a module that the registration below has
# imported already. It holds no state, so running it a second time is harmless.
# The same goes for `phantom`.
warnings.filterwarnings(
  'ignore',
  message='.*tfds_lidc.(cohort|phantom).* found in sys.modules',
  category=RuntimeWarning,
)

# Registers the dataset. TFDS refuses a second import under another name.
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder as _builder  # noqa: E402, F401
