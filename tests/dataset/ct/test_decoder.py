"""Compressed images are decoded elsewhere, where a crash or hang costs little.

That the values are right is in `test_compressed`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap

import dicom_files
import jpeg_lossless
import main_job
import numpy as np
import pydicom
from pydicom import uid
import pytest

from tfds_lidc import errors
from tfds_lidc.ct import decoder
from tfds_lidc.ct import pixels

_RAW = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16)


@pytest.fixture
def decode():
  made = decoder.Decoder()
  yield made
  made.close()


def _compressed(path, syntax=uid.RLELossless, stream=None):
  dicom_files.write_slice(path, _RAW)
  dataset = pydicom.dcmread(path)
  if stream is None:
    dataset.compress(syntax)
  else:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset['PixelData'].VR = 'OB'
    dataset['PixelData'].is_undefined_length = True
  dataset.save_as(path)
  return dataset


def test_one_process_decodes_them_all(tmp_path, decode):
  dataset = _compressed(tmp_path / '1.dcm')
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  first = decode._process.pid
  assert first != os.getpid()
  np.testing.assert_array_equal(decode(dataset, 'pydicom'), _RAW)
  assert decode._process.pid == first
  # What another refuses is an answer, and no end.
  dataset.PixelData = pydicom.encaps.encapsulate([bytes(80)])
  with pytest.raises(decoder.DecodingError, match='RLE'):
    decode(dataset, '')
  assert decode._process.pid == first


def test_who_was_killed_is_replaced(tmp_path, decode):
  """For want of memory, say: no fault of the image."""
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  first = decode._process
  os.kill(first.pid, signal.SIGKILL)
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert first.returncode == -signal.SIGKILL


def _customize(tmp_path, monkeypatch, lines):
  """Has the other process run `lines` when it is to decode."""
  (tmp_path / 'sitecustomize.py').write_text(
    textwrap.dedent(
      """
      import os
      import signal
      import sys
      import pydicom

      right = pydicom.Dataset.pixel_array

      def changed(dataset):
        LINES
        return right.fget(dataset)

      pydicom.Dataset.pixel_array = property(changed)
      """
    ).replace('LINES', lines)
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))


def test_an_image_that_ends_it_twice_is_refused(tmp_path, decode, monkeypatch):
  _customize(
    tmp_path,
    monkeypatch,
    f"open('{tmp_path}/tries', 'a').write('x'); "
    'os.kill(os.getpid(), signal.SIGSEGV)',
  )
  dataset = _compressed(tmp_path / '1.dcm')
  with pytest.raises(
    decoder.DecodingError, match='^its decoder ends with.*-11'
  ):
    decode(dataset, '')
  assert (tmp_path / 'tries').read_text() == 'xx'


def test_one_that_does_not_start_is_no_fault_of_the_image(
  tmp_path, decode, monkeypatch
):
  _compressed(tmp_path / '1.dcm')
  monkeypatch.setattr(pixels, '_decode_apart', decode)
  with monkeypatch.context() as patched:
    patched.setattr(sys, 'executable', '/nowhere/python')
    with pytest.raises(
      errors.InputError, match='cannot start .*: /nowhere/python: No such file'
    ):
      pixels.try_read_hu(tmp_path / '1.dcm')
  (tmp_path / 'pydicom.py').write_text('raise SystemExit(3)')
  with monkeypatch.context() as patched:
    patched.setenv('PYTHONPATH', str(tmp_path))
    with pytest.raises(errors.InputError, match='ends with code 3'):
      pixels.try_read_hu(tmp_path / '1.dcm')
  hu, _ = pixels.try_read_hu(tmp_path / '1.dcm')
  np.testing.assert_array_equal(hu, _RAW.astype(int) - 1024)


def test_after_an_interrupt_comes_another_process(
  tmp_path, decode, monkeypatch
):
  """Else its late answer would be taken for that to the next image."""
  dataset = _compressed(tmp_path / '1.dcm')

  def interrupt(_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(decoder, '_receive', interrupt)
    with pytest.raises(KeyboardInterrupt):
      decode(dataset, '')
  other = _compressed(tmp_path / '2.dcm')
  other.PixelData = _RAW[::-1].tobytes()
  other.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  other['PixelData'].VR = 'OW'
  other.compress(uid.RLELossless)
  np.testing.assert_array_equal(decode(other, ''), _RAW[::-1])


def test_what_a_library_prints_is_no_answer(
  tmp_path, decode, monkeypatch, capfd
):
  _customize(
    tmp_path, monkeypatch, "os.write(1, b'odd'); os.write(2, b'marker')"
  )
  dataset = _compressed(tmp_path / '1.dcm')
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert capfd.readouterr() == ('', '')


def test_what_stops_others_does_not_stop_it(tmp_path, decode):
  """Both come to all processes of a terminal, or of a job of a cluster."""
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  process = decode._process
  os.kill(process.pid, signal.SIGINT)
  os.kill(process.pid, signal.SIGTERM)
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert decode._process is process


def test_an_image_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
  """412 bytes, of 16 x 16 pixels, in which CharLS stays for seconds.

  Found by damaging sound images at random; see docs/reliability.md.
  """
  stream = (main_job.ROOT / 'tests' / 'fixtures' / 'slow.jls').read_bytes()
  _compressed(tmp_path / '1.dcm', uid.JPEGLSLossless, stream)
  decode = decoder.Decoder(seconds=0.25)
  monkeypatch.setattr(pixels, '_decode_apart', decode)
  # As a parent may have it, and children inherit.
  signal.signal(signal.SIGPROF, signal.SIG_IGN)
  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
  try:
    _, fault = pixels.try_read_hu(tmp_path / '1.dcm')
  finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    decode.close()
  assert fault.reason == (
    'cannot be decoded (its decoder takes more than 0.25 s of processor time)'
  )


def test_waiting_is_not_decoding(tmp_path, monkeypatch):
  """A machine that others keep busy refuses nothing."""
  _customize(tmp_path, monkeypatch, "__import__('time').sleep(1)")
  decode = decoder.Decoder(seconds=0.5)
  try:
    dataset = _compressed(tmp_path / '1.dcm')
    np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  finally:
    decode.close()


def test_large_images_may_take_longer(tmp_path, monkeypatch):
  burn = 'import time; start = time.process_time(); '
  burn += 'exec("while time.process_time() - start < 1: pass")'
  _customize(tmp_path, monkeypatch, burn)
  decode = decoder.Decoder(seconds=0.3)
  raw = np.zeros((2048, 2560), np.uint16)
  dicom_files.write_slice(tmp_path / '1.dcm', raw)
  dataset = pydicom.dcmread(tmp_path / '1.dcm')
  dataset.compress(uid.RLELossless)
  try:
    np.testing.assert_array_equal(decode(dataset, ''), raw)
    with pytest.raises(decoder.DecodingError, match='more than 0.3 s'):
      decode(_compressed(tmp_path / '2.dcm'), '')
  finally:
    decode.close()


@pytest.mark.extra
@pytest.mark.parametrize(
  # The precision, of which SIGSEGV comes; the marker of the Huffman table, of
  # which abort() comes.
  ('at', 'value'),
  [(6, 255), (15, 0)],
)
def test_an_image_that_ends_gdcm_is_refused(tmp_path, at, value):
  pytest.importorskip('gdcm', reason='needs the extra jpeg')
  stream = bytearray(jpeg_lossless.encode(_RAW, 12))
  _compressed(tmp_path / '1.dcm', uid.JPEGLosslessSV1, bytes(stream))
  np.testing.assert_array_equal(
    dicom_files.read_hu(tmp_path / '1.dcm'), _RAW.astype(int) - 1024
  )
  stream[at] = value
  _compressed(tmp_path / '1.dcm', uid.JPEGLosslessSV1, bytes(stream))
  _, fault = pixels.try_read_hu(tmp_path / '1.dcm')
  assert 'its decoder ends with code -' in fault.reason


def _decode_in_fork(dataset, decode, queue):
  queue.put((decode(dataset, ''), decode._process.pid))
  decode.close()


@pytest.mark.filterwarnings('ignore:.*fork:')
def test_a_fork_has_a_process_of_its_own(tmp_path, decode):
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  context = multiprocessing.get_context('fork')
  queue = context.Queue()
  fork = context.Process(target=_decode_in_fork, args=(dataset, decode, queue))
  fork.start()
  values, pid = queue.get(timeout=60)
  fork.join()
  np.testing.assert_array_equal(values, _RAW)
  assert pid != decode._process.pid
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)


def _hold(ready, end):
  ready.set()
  end.wait(60)


@pytest.mark.filterwarnings('ignore:.*fork:')
def test_a_fork_does_not_keep_it_alive(tmp_path):
  """Nor does it wait for the lock that another thread of its parent held."""
  decode = decoder.Decoder()
  decode(_compressed(tmp_path / '1.dcm'), '')
  process = decode._process
  context = multiprocessing.get_context('fork')
  ready, end = context.Event(), context.Event()
  with decode._lock:
    fork = context.Process(target=_hold, args=(ready, end))
    fork.start()
  try:
    assert ready.wait(60)
    decode.close()
    # Else it would not have seen its input end, and been killed.
    assert process.returncode == 0
  finally:
    end.set()
    fork.join()


def test_a_script_needs_no_guard_and_leaves_no_process(tmp_path):
  """A pool of processes would run an unguarded script once more."""
  _compressed(tmp_path / '1.dcm')
  script = tmp_path / 'script.py'
  script.write_text(
    textwrap.dedent(
      f"""
      from tfds_lidc.ct import pixels
      pixels.try_read_hu({str(tmp_path / '1.dcm')!r})
      print(pixels._decode_apart._process.pid)
      """
    )
  )
  done = subprocess.run(
    [sys.executable, script],
    env=main_job.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and not done.stderr, done.stderr
  with pytest.raises(ProcessLookupError):
    os.kill(int(done.stdout), 0)
