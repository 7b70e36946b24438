"""The TFDS dataset `lidc_nodules`."""
