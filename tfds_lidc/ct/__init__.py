"""DICOM files of CT, from headers to HU. Start with `index`."""
