"""Guards against what users give: series, tables, texts."""

from faults import guard

_PIXELS, _HEADER = 'tfds_lidc/ct/pixels.py', 'tfds_lidc/ct/header.py'
_GEOMETRY = 'mtnet_jax/ct/geometry.py'

GUARDS = (
  # DICOM.
  guard.Guard(
    _PIXELS,
    '  if not 0 < rows * columns <= _MAX_PIXELS:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '  if frames != 1:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '  if samples != 1:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '  if bits not in _BITS:',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '  if size != (rows, columns, 1):',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '    if not np.isfinite([slope, intercept]).all():',
    '    if False:',
    'tests/dataset/ct/test_dicom_series.py',
  ),
  guard.Guard(
    _PIXELS,
    '  return _decode_apart(dataset, name)',
    '  dataset.pixel_array_options(decoding_plugin=name)\n'
    '  return dataset.pixel_array',
    'tests/dataset/ct/test_decoder.py',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '    signal.setitimer(signal.ITIMER_PROF, seconds)',
    '    pass',
    'tests/dataset/ct/test_decoder.py -k too_long',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '        except (EOFError, BrokenPipeError):',
    '        except ZeroDivisionError:',
    'tests/dataset/ct/test_decoder.py -k killed',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '    except BaseException:\n      # Interrupted',
    '    except ZeroDivisionError:\n      # Interrupted',
    'tests/dataset/ct/test_decoder.py -k interrupt',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '  os.register_at_fork(after_in_child=_forget_all)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k fork',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '  os.dup2(nowhere, 1)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k prints',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '  signal.signal(signal.SIGTERM, signal.SIG_IGN)',
    '  pass',
    'tests/dataset/ct/test_decoder.py -k stops',
  ),
  guard.Guard(
    'tfds_lidc/ct/decoder.py',
    '    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])',
    '    pass',
    'tests/dataset/ct/test_decoder.py -k too_long',
  ),
  guard.Guard(
    'tfds_lidc/ct/codestream.py',
    '    if length < 8:',
    '    if False:',
    'tests/dataset/ct/test_codestream.py',
  ),
  guard.Guard(
    _HEADER,
    '  if _inflates_beyond_measure(f):',
    '  if False:',
    'tests/dataset/ct/test_dicom_series.py -k bomb',
  ),
  guard.Guard(
    _HEADER,
    'size if size is None else min(size, self._size)',
    'size',
    'tests/dataset/ct/test_dicom_series.py -k length',
  ),
  guard.Guard(
    _HEADER,
    '    if not stat.S_ISREG(status.st_mode):',
    '    if False:',
    'tests/dataset/ct/test_dicom_series.py -k pipe',
  ),
  guard.Guard(
    _HEADER,
    '      if not math.isfinite(z_mm):',
    '      if False:',
    'tests/dataset/ct/test_dicom_series.py -k position',
  ),
  guard.Guard(
    'mtnet_jax/ct/points.py',
    '      return self.series.get(name, uid) == uid',
    '      return True',
    'tests/ct/test_points.py',
  ),
  guard.Guard(
    'tfds_lidc/ct/header.py',
    '      _note_encoding(dataset)',
    '      pass',
    'tests/dataset/ct/test_syntax.py',
  ),
  guard.Guard(
    'tfds_lidc/ct/pixels.py',
    '    hu[_is_padding(dataset, raw) & (hu > _MAX_HU)] = _AIR_HU\n',
    '    pass\n',
    'tests/dataset/ct/test_compressed.py',
  ),
  guard.Guard(
    _GEOMETRY,
    '  if np.abs(axes.T @ axes - np.eye(axes.shape[1])).max() > 1e-2:',
    '  if False:',
    'tests/ct/test_geometry.py',
  ),
  guard.Guard(
    _GEOMETRY,
    '  if min(down, across) <= 0:',
    '  if False:',
    'tests/ct/test_geometry.py',
  ),
  # Tables, texts and terminals.
  guard.Guard(
    'mtnet_jax/ct/points.py',
    '  if not _ID.fullmatch(name):',
    '  if False:',
    'tests/ct/test_points.py',
  ),
  guard.Guard(
    'mtnet_jax/ct/points.py',
    '    if not math.isfinite(value):',
    '    if False:',
    'tests/ct/test_points.py',
  ),
  guard.Guard(
    'mtnet_jax/system/errors.py',
    'c if c.isprintable() else unknown',
    'c',
    'tests/system/test_errors.py',
  ),
  guard.Guard(
    'tfds_lidc/errors.py',
    'c if c.isprintable() else unknown',
    'c',
    'tests/system/test_errors.py',
  ),
)
