"""Finds the transfer syntax of an image from its bytes.

The transfer syntax in the meta header may be missing, or date from before the
file was converted. pydicom detects the encoding of elements by itself, but
decodes the pixels as the meta header claims.
"""

import pydicom
from pydicom import encaps
from pydicom import uid

from tfds_lidc.ct import codestream

# Transfer syntaxes by kind of compression. A decoder needs no more than the
# kind; the first is used if the meta header claims none of the kind.
_SYNTAXES = {
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


def correct(dataset: pydicom.Dataset) -> None:
  """Sets `file_meta.TransferSyntaxUID` to that of the bytes.

  Args:
    dataset: the result of `header.parse`, with pixels; changed in place. The
      claim stays if the compression of the pixels is unknown.
  """
  claimed = dataset.file_meta.get('TransferSyntaxUID')
  if claimed == uid.DeflatedExplicitVRLittleEndian:
    return  # pydicom has already inflated it
  # Only compressed pixels have an undefined length.
  if 'PixelData' in dataset and dataset['PixelData'].is_undefined_length:
    stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    kind = codestream.kind(stream)
    fitting = _SYNTAXES[kind] if kind else (claimed,)
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
