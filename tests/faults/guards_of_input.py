"""Guards against invalid input: series, tables and texts."""

from faults import guard

_PIXELS, _HEADER = 'tfds_lidc/ct/pixels.py', 'tfds_lidc/ct/header.py'
_GEOMETRY = 'mtnet_jax/ct/geometry.py'
_DAMAGED = 'tests/dataset/lidc_nodules/test_damaged_files.py'

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
  # Files that are not ordinary ones, and datasets of others.
  guard.Guard(
    'mtnet_jax/storage/files.py',
    '    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):',
    '    if False:',
    'tests/storage/test_files.py -k regular',
  ),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    "flags | getattr(os, 'O_NONBLOCK', 0)",
    'flags',
    'tests/storage/test_files.py -k regular',
  ),
  guard.Guard(
    'mtnet_jax/storage/seen.py',
    '      or not all(cell.isprintable() for cell in row)\n',
    '',
    'tests/storage/test_seen.py',
  ),
  guard.Guard(
    'tfds_lidc/paths.py',
    '  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):',
    '  if False:',
    'tests/dataset/nodules/test_lists.py -k ordinary',
  ),
  guard.Guard(
    'tfds_lidc/paths.py',
    "  flags = getattr(os, 'O_NONBLOCK', 0)",
    '  flags = 0',
    'tests/dataset/nodules/test_lists.py -k ordinary',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/file_checks.py',
    '    check_ordinary(path, status)\n',
    '',
    f'{_DAMAGED} -k pipe_or_device',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/file_checks.py',
    'status.st_size > _MAX_BYTES',
    'False',
    f'{_DAMAGED} -k longer',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/file_checks.py',
    'not name.startswith(_OWN_FEATURES)',
    'False',
    f'{_DAMAGED} -k module',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/file_checks.py',
    "  if 'type' in content:",
    '  if False:',
    f'{_DAMAGED} -k module',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/file_checks.py',
    "    if 'jsonFeature' in found:",
    '    if False:',
    f'{_DAMAGED} -k module',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/lidc_nodules_dataset_builder.py',
    '    file_checks.check(self._data_dir)\n',
    '',
    f'{_DAMAGED} -k pipe_or_device',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    '        file_checks.check(folder)',
    '        pass',
    f'{_DAMAGED} -k "another_version or module"',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    '  if not parts:',
    '  if False:',
    f'{_DAMAGED} -k argument',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    '      if pathlib.Path(path).parent != pathlib.Path(info.data_dir):',
    '      if False:',
    f'{_DAMAGED} -k another_folder',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    "    and _is_spacing(content.get('spacing_mm'))\n",
    '',
    f'{_DAMAGED} -k spacing',
  ),
  guard.Guard(
    'tfds_lidc/lidc_nodules/damage.py',
    "return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])",
    "return ' '.join(['python', '-m', 'tfds_lidc.build', *flags])",
    f'{_DAMAGED} -k quoted',
  ),
  guard.Guard(
    'mtnet_jax/data/lidc.py',
    "return shlex.join(['python', '-m', 'tfds_lidc.build', *flags])",
    "return ' '.join(['python', '-m', 'tfds_lidc.build', *flags])",
    'tests/data/test_dataset_names.py -k quoted',
  ),
  guard.Guard(
    'mtnet_jax/data/lidc.py',
    ' or len(config) > _MAX_CHARACTERS:',
    ':',
    'tests/data/test_dataset_names.py -k short',
  ),
  guard.Guard(
    'mtnet_jax/data/records.py',
    '0 < len(text) <= _MAX_CHARACTERS and text.isprintable()',
    'True',
    'tests/data/test_dataset_records.py',
  ),
  guard.Guard(
    'mtnet_jax/data/records.py',
    "  if value.shape or value.dtype.kind not in 'iuf':",
    '  if False:',
    'tests/data/test_dataset_records.py',
  ),
  guard.Guard(
    'mtnet_jax/data/lidc.py',
    '  except _DAMAGE as error:',
    '  except OSError as error:',
    'tests/data/test_dataset_records.py',
  ),
  guard.Guard(
    'mtnet_jax/weights/files.py',
    '  if length > hdf5.MAX_BYTES + _OVERHEAD_BYTES:',
    '  if False:',
    'tests/weights/test_load_refused.py -k unread',
  ),
  guard.Guard(
    'mtnet_jax/weights/load.py',
    'not jnp.issubdtype(value.dtype, jnp.floating)',
    'False',
    'tests/weights/test_load_refused.py',
  ),
  guard.Guard(
    'mtnet_jax/weights/load.py',
    ' or value.shape != shape:',
    ':',
    'tests/weights/test_load_refused.py -k keras',
  ),
  guard.Guard(
    'mtnet_jax/weights/files.py',
    'tensor.float() if tensor.is_floating_point() else tensor',
    'tensor.float()',
    'tests/weights/test_load_refused.py -k pytorch',
  ),
)
