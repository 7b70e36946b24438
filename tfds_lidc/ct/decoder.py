"""Compressed images, decoded in a process of their own.

Decoders are written in C: some end the process on damaged images, or take
minutes. Here that costs another process, which this file runs as a script, so
that nothing but pydicom and NumPy is imported:

    python -P decoder.py

It writes an empty line when it is ready, reads (decoder, dataset, seconds)
pickled from its standard input, and answers with a line of JSON, which the
values follow. It ends with its input.
"""

import atexit
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import BinaryIO
import weakref

import numpy as np
import pydicom

# Processor time for a million pixels, which take some tenths of a second.
SECONDS = 3
_MILLION = 2**20
_HAS_TIMER = hasattr(signal, 'setitimer')
_TOO_LONG = -signal.SIGPROF if _HAS_TIMER else None

_decoders = weakref.WeakSet()


class DecodingError(Exception):
  """An image cannot be decoded; the message says why."""


class StartError(Exception):
  """No image can be decoded, since the process does not start."""


class Decoder:
  """Decodes images in another process, which starts with the first.

  An image that ends the process, or takes too long, costs that process only,
  and the next image starts another.

  Attributes:
    seconds: of processor time that an image of up to a million pixels may
      take; larger ones may take more in proportion.
  """

  def __init__(self, seconds: float = SECONDS):
    self.seconds = seconds
    self._process = None
    self._lock = threading.Lock()
    _decoders.add(self)

  def __call__(self, dataset: pydicom.Dataset, decoder: str) -> np.ndarray:
    """What `dataset.pixel_array` is.

    Args:
      dataset: its pixels are compressed.
      decoder: pydicom's name of one, '' for any.

    Raises:
      DecodingError: they cannot be decoded.
      StartError: this is no fault of the image.
    """
    pixels = dataset.Rows * dataset.Columns
    seconds = self.seconds * max(1, pixels / _MILLION)
    request = pickle.dumps((decoder, dataset, seconds))
    with self._lock:
      # Twice: other programs can be why it was killed, by using up the memory.
      for _ in range(2):
        try:
          return self._ask(request)
        except (EOFError, BrokenPipeError):
          code = self._end()
        if code == _TOO_LONG:
          raise DecodingError(
            f'its decoder takes more than {seconds:g} s of processor time'
          )
    raise DecodingError(f'its decoder ends with code {code}')

  def close(self) -> None:
    """Ends the process; the next image starts another."""
    with self._lock:
      self._end()

  def _ask(self, request):
    self._start()
    try:
      _send(request, self._process.stdin)
      return _receive(self._process.stdout)
    except (DecodingError, EOFError, BrokenPipeError):
      raise
    except BaseException:
      # Interrupted in the middle, the next answer would be to this image.
      self._end()
      raise

  def _start(self):
    if self._process:
      return
    try:
      # Unbuffered: a fork would inherit what its parent has yet to write, and
      # the lock of a buffer that one of its threads is reading.
      self._process = subprocess.Popen(
        [sys.executable, '-P', __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
      )
    except OSError as e:
      raise StartError(f'{sys.executable}: {e.strerror}') from None
    atexit.register(self.close)
    try:
      ready = self._process.stdout.readline()
    except BaseException:
      self._end()
      raise
    if not ready:
      code = self._end()
      raise StartError(f'{sys.executable} -P {__file__} ends with code {code}')

  def _end(self):
    """Ends the process; returns its code, or None where there is none."""
    process, self._process = self._process, None
    if not process:
      return None
    atexit.unregister(self.close)
    process.stdin.close()
    process.stdout.close()
    try:
      process.wait(timeout=1)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    return process.returncode

  def _forget(self):
    """In a fork: the process and the holder of the lock are the parent's."""
    self._lock = threading.Lock()
    process, self._process = self._process, None
    if process:
      # Open here, they would keep it alive when its parent has ended.
      process.stdin.close()
      process.stdout.close()
      process.returncode = 0  # or Python would wait for it
      atexit.unregister(self.close)


def _forget_all():
  for decoder in _decoders:
    decoder._forget()


if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=_forget_all)


def _send(data: bytes, stream: BinaryIO) -> None:
  view = memoryview(data)
  while view:
    view = view[stream.write(view) :]


def _read(size: int, stream: BinaryIO) -> bytes:
  parts = []
  while size:
    part = stream.read(size)
    if not part:
      raise EOFError
    parts.append(part)
    size -= len(part)
  return b''.join(parts)


def _receive(stream: BinaryIO) -> np.ndarray:
  line = stream.readline()
  if not line:
    raise EOFError
  answer = json.loads(line)
  if 'error' in answer:
    raise DecodingError(answer['error'])
  dtype = np.dtype(answer['dtype'])
  size = dtype.itemsize * math.prod(answer['shape'])
  values = np.frombuffer(_read(size, stream), dtype)
  return values.reshape(answer['shape'])


def _decode(decoder: str, dataset: pydicom.Dataset) -> np.ndarray:
  dataset.pixel_array_options(decoding_plugin=decoder)
  return dataset.pixel_array


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
  while True:
    try:
      decoder, dataset, seconds = pickle.load(requests)
    except EOFError:
      return
    # Unhandled, the signal ends the process wherever it is.
    _set_timer(seconds)
    try:
      values = _decode(decoder, dataset)
      answer = {'dtype': values.dtype.str, 'shape': values.shape}
      data = values.tobytes()
    # Broken pixel data surfaces as nearly any exception of NumPy or a codec.
    except Exception as e:
      answer, data = {'error': f'{type(e).__name__}: {e}'}, b''
    _set_timer(0)
    answers.write(json.dumps(answer).encode() + b'\n' + data)
    answers.flush()


def _set_timer(seconds: float) -> None:
  # Processor time: other programs may keep the machine busy.
  if _HAS_TIMER:
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _main() -> None:
  # They are meant for the parent, and this process ends with its parent.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  if _HAS_TIMER:
    # A parent may have it ignored or blocked, and children inherit that.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
  # What a C library prints must not get between the answers.
  answers = os.fdopen(os.dup(1), 'wb')
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 1)
  os.dup2(nowhere, 2)
  answers.write(b'\n')
  answers.flush()
  _serve(sys.stdin.buffer, answers)


if __name__ == '__main__':
  _main()
