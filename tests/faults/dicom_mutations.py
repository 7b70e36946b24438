"""Damages elements of DICOM files.

Files are written without pydicom, which would refuse invalid values.
"""

import io
import random
import struct
import zlib

from faults import mutations
import pydicom
from pydicom import datadict
from pydicom import uid

_LONG_VRS = (b'OB', b'OW', b'OF', b'OD', b'SQ', b'UN', b'UT', b'UC', b'UR')
_PIXELS = (0x7FE0, 0x0010)
_SYNTAXES = (
  uid.ImplicitVRLittleEndian,
  uid.ExplicitVRLittleEndian,
  uid.ExplicitVRBigEndian,
  uid.DeflatedExplicitVRLittleEndian,
  uid.RLELossless,
  uid.JPEGBaseline8Bit,
  uid.JPEGExtended12Bit,
  uid.JPEGLossless,
  uid.JPEGLosslessSV1,
  uid.JPEGLSLossless,
  uid.JPEG2000Lossless,
  uid.JPEG2000,
  uid.HTJ2KLossless,
  uid.MPEG2MPML,
  '1.2.3',
  '',
)
_NUMBERS = (
  '0',
  '-0',
  '-1',
  '1',
  '2',
  'nan',
  'inf',
  '-inf',
  '1e308',
  '1e999',
  '1e-320',
  '0.7\\0.7',
  '0.7\\-0.7',
  '1e200\\1e200',
  'nan\\nan',
  '0\\0',
  '1\\2\\3',
  'nan\\nan\\nan',
  '1e308\\1e308\\1e308',
  '0\\0\\inf',
  '0\\0\\0\\0\\0\\0',
  'nan\\0\\0\\0\\nan\\0',
  '1\\0\\0\\1\\0\\0',
  '0\\1\\0\\1\\0\\0',
  '\\\\',
  '',
  'abc',
  '9' * 400,
)
_SHORTS = (0, 1, 2, 7, 8, 12, 15, 16, 17, 32, 64, 255, 4096, 60000, 65535)
# Elements that readers of images use: (group, element) -> VR.
_TAGS = {
  (0x0028, 0x0010): 'US',  # Rows
  (0x0028, 0x0011): 'US',  # Columns
  (0x0028, 0x0100): 'US',  # BitsAllocated
  (0x0028, 0x0101): 'US',  # BitsStored
  (0x0028, 0x0102): 'US',  # HighBit
  (0x0028, 0x0103): 'US',  # PixelRepresentation
  (0x0028, 0x0002): 'US',  # SamplesPerPixel
  (0x0028, 0x0006): 'US',  # PlanarConfiguration
  (0x0028, 0x0004): 'CS',  # PhotometricInterpretation
  (0x0028, 0x0008): 'IS',  # NumberOfFrames
  (0x0028, 0x0030): 'DS',  # PixelSpacing
  (0x0028, 0x1052): 'DS',  # RescaleIntercept
  (0x0028, 0x1053): 'DS',  # RescaleSlope
  (0x0020, 0x0032): 'DS',  # ImagePositionPatient
  (0x0020, 0x0037): 'DS',  # ImageOrientationPatient
  (0x0020, 0x0013): 'IS',  # InstanceNumber
  (0x0020, 0x000D): 'UI',  # StudyInstanceUID
  (0x0020, 0x000E): 'UI',  # SeriesInstanceUID
  (0x0020, 0x0052): 'UI',  # FrameOfReferenceUID
  (0x0018, 0x0050): 'DS',  # SliceThickness
  (0x0018, 0x1120): 'DS',  # GantryDetectorTilt
  (0x0008, 0x0005): 'CS',  # SpecificCharacterSet
  (0x0008, 0x0018): 'UI',  # SOPInstanceUID
  (0x0008, 0x0020): 'DA',  # StudyDate
  (0x0008, 0x0030): 'TM',  # StudyTime
  (0x0008, 0x0060): 'CS',  # Modality
  (0x0008, 0x103E): 'LO',  # SeriesDescription
  (0x0010, 0x0010): 'PN',  # PatientName
  (0x0010, 0x0020): 'LO',  # PatientID
  (0x0010, 0x0030): 'DA',  # PatientBirthDate
  (0x0010, 0x0040): 'CS',  # PatientSex
}


def elements(data: bytes) -> tuple[str, dict]:
  """Returns transfer syntax and (group, element) -> (VR, bytes) of a file."""
  dataset = pydicom.dcmread(io.BytesIO(data), force=True)
  found = {}
  for tag in dataset.keys():
    raw = dataset.get_item(tag)
    if raw.VR == 'SQ':
      continue
    # Files with implicit VR do not contain it.
    vr = raw.VR or datadict.dictionary_VR(tag).split(' ')[0]
    found[tag.group, tag.element] = vr, bytes(raw.value or b'')
  syntax = dataset.file_meta.get('TransferSyntaxUID', '1.2.840.10008.1.2.1')
  return syntax, found


def assemble(syntax: str, parts: dict) -> bytes:
  """Returns a file of any elements and transfer syntax."""
  value = str(syntax).encode()
  value += b'\0' * (len(value) % 2)
  meta = b''.join(
    (
      _element((2, 2), 'UI', b'1.2.840.10008.5.1.4.1.1.2\0', '<', False),
      _element((2, 3), 'UI', b'1.2\0', '<', False),
      _element((2, 0x10), 'UI', value, '<', False),
    )
  )
  length = _element((2, 0), 'UL', struct.pack('<L', len(meta)), '<', False)
  order = '>' if syntax == uid.ExplicitVRBigEndian else '<'
  implicit = syntax == uid.ImplicitVRLittleEndian
  body = b''.join(
    _element(tag, vr, content, order, implicit)
    for tag, (vr, content) in sorted(parts.items())
  )
  if syntax == uid.DeflatedExplicitVRLittleEndian:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packer.compress(body) + packer.flush()
  return bytes(128) + b'DICM' + length + meta + body


def _element(tag, vr, content, order, implicit):
  # Encapsulated pixels have an undefined length and end with a delimiter.
  encapsulated = tag == _PIXELS and content[:4] == b'\xfe\xff\x00\xe0'
  size = 0xFFFFFFFF if encapsulated else len(content)
  if encapsulated:
    content += b'\xfe\xff\xdd\xe0\0\0\0\0'
  head = struct.pack(f'{order}HH', *tag)
  vr = vr.encode()
  if implicit:
    return head + struct.pack(f'{order}L', size) + content
  if vr in _LONG_VRS:
    return head + vr + b'\0\0' + struct.pack(f'{order}L', size) + content
  return head + vr + struct.pack(f'{order}H', len(content) & 0xFFFF) + content


def damage(rng: random.Random, data: bytes, other: bytes) -> bytes:
  """Gives some elements hostile values, or damages bytes."""
  kind = rng.random()
  if kind < 0.35:
    return mutations.damage(rng, data, other)
  syntax, parts = elements(data)
  for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
    _damage_element(rng, parts)
  if rng.random() < 0.2:
    syntax = rng.choice(_SYNTAXES)
  if rng.random() < 0.2 and _PIXELS in parts:
    vr, content = parts[_PIXELS]
    parts[_PIXELS] = vr, mutations.damage(rng, content, content)
  data = assemble(syntax, parts)
  return mutations.damage(rng, data, other) if rng.random() < 0.1 else data


def _damage_element(rng, parts):
  tag = rng.choice(list(_TAGS))
  vr, kind = _TAGS[tag], rng.random()
  if kind < 0.1:
    parts.pop(rng.choice(list(parts)), None)
    return
  if kind < 0.2:  # another VR
    vr = rng.choice(('US', 'DS', 'IS', 'UI', 'LO', 'SQ', 'FD', 'UN', 'ZZ'))
  if vr == 'US':
    num = rng.choice((1, 1, 1, 1, 0, 2, 100))
    values = [rng.choice(_SHORTS) for _ in range(num)]
    parts[tag] = vr, struct.pack(f'<{num}H', *values)
    return
  if vr in ('DS', 'IS'):
    text = rng.choice(_NUMBERS)
  else:
    text = rng.choice((*mutations.HOSTILE_TEXTS, '19999999', 'ISO_IR 192'))
  content = text[:60_000].encode('utf-8', 'replace')
  parts[tag] = vr, content + b' ' * (len(content) % 2)
