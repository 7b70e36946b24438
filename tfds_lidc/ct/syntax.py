"""The transfer syntax that the bytes of an image have.

What the meta header says can be missing, or left over from before the file was
converted. pydicom notices by itself how elements are written; the pixels it
decodes as they are said to be.
"""

import pydicom
from pydicom import encaps
from pydicom import uid

from tfds_lidc.ct import codestream

# Those of a kind differ in nothing that a decoder needs; the first is taken
# where the meta header names none of them.
_OF_KIND = {
  'JPEG': (uid.JPEGBaseline8Bit,),
  'JPEG Extended': (uid.JPEGExtended12Bit,),
  'JPEG Lossless': (uid.JPEGLossless, uid.JPEGLosslessSV1),
  'JPEG-LS': (uid.JPEGLSNearLossless, uid.JPEGLSLossless),
  'JPEG 2000': (uid.JPEG2000, uid.JPEG2000Lossless),
  'High-Throughput JPEG 2000': (
    uid.HTJ2K,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
  ),
  'RLE': (uid.RLELossless,),
}


def settle(dataset: pydicom.Dataset) -> None:
  """Makes `file_meta.TransferSyntaxUID` that of the bytes.

  Args:
    dataset: as `header.parse` gives it, with its pixels. Where these are
      compressed in a way that nobody knows, it stays what it was.
  """
  claimed = dataset.file_meta.get('TransferSyntaxUID')
  if claimed == uid.DeflatedExplicitVRLittleEndian:
    return  # pydicom has inflated it by then
  # Only compressed pixels have no length.
  if 'PixelData' in dataset and dataset['PixelData'].is_undefined_length:
    stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    fitting = _OF_KIND.get(codestream.kind(stream), (claimed,))
    if claimed not in fitting:
      dataset.file_meta.TransferSyntaxUID = fitting[0]
    return
  implicit, little_endian = dataset.original_encoding
  if implicit:
    found = uid.ImplicitVRLittleEndian
  elif little_endian:
    found = uid.ExplicitVRLittleEndian
  else:
    found = uid.ExplicitVRBigEndian
  dataset.file_meta.TransferSyntaxUID = found
