"""Defines the TFDS dataset `lidc_nodules`."""
