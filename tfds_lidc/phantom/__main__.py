"""Writes SIMULATED DICOM series: `python -m tfds_lidc.phantom`."""

from tfds_lidc import errors
from tfds_lidc.phantom import series

if __name__ == '__main__':
  errors.exit_on_input_error(series.main)
