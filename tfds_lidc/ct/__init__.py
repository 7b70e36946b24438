"""DICOM files of CT, from headers to HU. Door: `index`."""
