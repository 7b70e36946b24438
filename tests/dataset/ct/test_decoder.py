"""Compressed images are decoded in another process, which may crash or hang.

`test_compressed` tests the decoded values.
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
  decode = decoder.Decoder()
  yield decode
  decode.close()


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


def test_one_process_decodes_all_images(tmp_path, decode):
  dataset = _compressed(tmp_path / '1.dcm')
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  first = decode._process.pid
  assert first != os.getpid()
  np.testing.assert_array_equal(decode(dataset, 'pydicom'), _RAW)
  assert decode._process.pid == first
  # An image that cannot be decoded does not end the process.
  dataset.PixelData = pydicom.encaps.encapsulate([bytes(80)])
  with pytest.raises(decoder.DecodingError, match='RLE'):
    decode(dataset, '')
  assert decode._process.pid == first


def test_killed_process_is_replaced(tmp_path, decode):
  """The system may kill it for lack of memory; the image is not at fault."""
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  first = decode._process
  os.kill(first.pid, signal.SIGKILL)
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert first.returncode == -signal.SIGKILL


def _customize(tmp_path, monkeypatch, lines):
  """Makes the decoding process run `lines` before it decodes an image."""
  (tmp_path / 'sitecustomize.py').write_text(
    textwrap.dedent(
      """
      import os
      import signal
      import sys
      import pydicom

      original = pydicom.Dataset.pixel_array

      def changed(dataset):
        LINES
        return original.fget(dataset)

      pydicom.Dataset.pixel_array = property(changed)
      """
    ).replace('LINES', lines)
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))


def test_image_that_crashes_the_process_twice_is_refused(
  tmp_path, decode, monkeypatch
):
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


def test_process_that_cannot_start_is_not_a_fault_of_the_image(
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


def test_interrupt_replaces_the_process(tmp_path, decode, monkeypatch):
  """Otherwise its late answer would be taken for that to the next image."""
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


def test_what_a_library_prints_is_not_an_answer(
  tmp_path, decode, monkeypatch, capfd
):
  _customize(
    tmp_path, monkeypatch, "os.write(1, b'odd'); os.write(2, b'marker')"
  )
  dataset = _compressed(tmp_path / '1.dcm')
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert capfd.readouterr() == ('', '')


def test_signal_that_stops_the_parent_does_not_stop_the_process(
  tmp_path, decode
):
  """All processes of a terminal or of a cluster's job get both signals."""
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  process = decode._process
  os.kill(process.pid, signal.SIGINT)
  os.kill(process.pid, signal.SIGTERM)
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  assert decode._process is process


def test_image_that_takes_too_long_is_refused(tmp_path, monkeypatch):
  """CharLS needs seconds for these 412 bytes of 16 x 16 pixels.

  The file was found by damaging images at random; see docs/reliability.md.
  """
  stream = (main_job.ROOT / 'tests' / 'fixtures' / 'slow.jls').read_bytes()
  _compressed(tmp_path / '1.dcm', uid.JPEGLSLossless, stream)
  decode = decoder.Decoder(seconds=0.25)
  monkeypatch.setattr(pixels, '_decode_apart', decode)
  # Children inherit both settings from their parent.
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


def test_limit_is_of_processor_time(tmp_path, monkeypatch):
  """A busy machine must not refuse images."""
  _customize(tmp_path, monkeypatch, "__import__('time').sleep(1)")
  decode = decoder.Decoder(seconds=0.5)
  try:
    dataset = _compressed(tmp_path / '1.dcm')
    np.testing.assert_array_equal(decode(dataset, ''), _RAW)
  finally:
    decode.close()


def test_limit_is_higher_for_large_images(tmp_path, monkeypatch):
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
  # A wrong precision causes SIGSEGV, a wrong marker of the Huffman table causes
  # abort().
  ('at', 'value'),
  [(6, 255), (15, 0)],
)
def test_image_that_crashes_gdcm_is_refused(tmp_path, at, value):
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
def test_fork_starts_its_own_process(tmp_path, decode):
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


def _wait_for_end(ready, end):
  ready.set()
  end.wait(60)


@pytest.mark.filterwarnings('ignore:.*fork:')
def test_fork_does_not_keep_the_process_alive(tmp_path):
  """Nor does a fork wait for a lock that a thread of its parent holds."""
  decode = decoder.Decoder()
  decode(_compressed(tmp_path / '1.dcm'), '')
  process = decode._process
  context = multiprocessing.get_context('fork')
  ready, end = context.Event(), context.Event()
  with decode._lock:
    fork = context.Process(target=_wait_for_end, args=(ready, end))
    fork.start()
  try:
    assert ready.wait(60)
    decode.close()
    # A fork that kept the pipe open would hide the end of the input, and the
    # process would be killed.
    assert process.returncode == 0
  finally:
    end.set()
    fork.join()


def test_script_needs_no_main_guard_and_leaves_no_process(tmp_path):
  """A pool of processes would run a script without such a guard again."""
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
