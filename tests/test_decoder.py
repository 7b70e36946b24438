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

from tfds_lidc import decoder
from tfds_lidc import dicom

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


def test_after_a_crash_comes_another_process(tmp_path, decode):
  dataset = _compressed(tmp_path / '1.dcm')
  decode(dataset, '')
  first = decode._process
  # It dies with the image before it.
  os.kill(first.pid, signal.SIGSTOP)
  os.kill(first.pid, signal.SIGKILL)
  with pytest.raises(decoder.DecodingError, match='ends with code -9'):
    decode(dataset, '')
  assert first.returncode == -signal.SIGKILL
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)


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


def test_what_a_library_prints_is_no_answer(tmp_path, decode, monkeypatch):
  (tmp_path / 'sitecustomize.py').write_text(
    textwrap.dedent(
      """
      import os
      import pydicom

      right = pydicom.Dataset.pixel_array

      def noisy(dataset):
        os.write(1, b'warning: odd marker')
        return right.fget(dataset)

      pydicom.Dataset.pixel_array = property(noisy)
      """
    )
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  dataset = _compressed(tmp_path / '1.dcm')
  np.testing.assert_array_equal(decode(dataset, ''), _RAW)


def test_an_image_that_takes_too_long_is_given_up(tmp_path):
  """434 bytes, of 16 x 16 pixels, in which CharLS stays for seconds.

  Found by damaging sound images at random; see docs/reliability.md.
  """
  stream = (main_job.ROOT / 'tests' / 'data' / 'slow.jls').read_bytes()
  _compressed(tmp_path / '1.dcm', uid.JPEGLSLossless, stream)
  _, fault = dicom.try_read_hu(tmp_path / '1.dcm')
  assert fault.reason == (
    f'cannot be decoded (its decoder takes more than {decoder.SECONDS} s)'
  )


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
    dicom.read_hu(tmp_path / '1.dcm'), _RAW.astype(int) - 1024
  )
  stream[at] = value
  _compressed(tmp_path / '1.dcm', uid.JPEGLosslessSV1, bytes(stream))
  _, fault = dicom.try_read_hu(tmp_path / '1.dcm')
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


def test_a_script_needs_no_guard_and_leaves_no_process(tmp_path):
  """A pool of processes would run an unguarded script once more."""
  _compressed(tmp_path / '1.dcm')
  script = tmp_path / 'script.py'
  script.write_text(
    textwrap.dedent(
      f"""
      from tfds_lidc import dicom
      dicom.read_hu({str(tmp_path / '1.dcm')!r})
      print(dicom._decode_apart._process.pid)
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
