"""Compressed images, decoded in a process of their own.

Decoders are written in C: some end the process on damaged images, or take
minutes. Here that costs another process, which this file runs as a script, so
that nothing but pydicom and NumPy is imported:

    python -P decoder.py

It reads (decoder, dataset) pickled from its standard input, and answers with a
line of JSON, which the values follow. It ends with its input.
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

import numpy as np
import pydicom

# An image of 512 x 512 takes some hundredths of a second.
SECONDS = 5


class DecodingError(Exception):
  """An image cannot be decoded; the message says why."""


class Decoder:
  """Decodes images in another process, which starts with the first.

  An image that ends the process, or takes too long, costs that process only,
  and the next image starts another.
  """

  def __init__(self):
    self._process = None
    self._lock = threading.Lock()
    self._owner = None

  def __call__(self, dataset: pydicom.Dataset, decoder: str) -> np.ndarray:
    """What `dataset.pixel_array` is.

    Args:
      dataset: its pixels are compressed.
      decoder: pydicom's name of one, '' for any.

    Raises:
      DecodingError: they cannot be decoded.
    """
    with self._lock:
      self._start()
      try:
        pickle.dump((decoder, dataset), self._process.stdin)
        self._process.stdin.flush()
        return _receive(self._process.stdout)
      except DecodingError:
        raise
      except (EOFError, BrokenPipeError):
        raise DecodingError(self.close()) from None
      except BaseException:
        # Interrupted in the middle, the next answer would be to this image.
        self.close()
        raise

  def _start(self) -> None:
    if self._owner != os.getpid():
      self._process = None  # after a fork it is that of another
    if self._process:
      return
    self._owner = os.getpid()
    self._process = subprocess.Popen(
      [sys.executable, '-P', __file__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
    )
    atexit.register(self.close)

  def close(self) -> str:
    """Ends the process; returns why it ended, if it had."""
    if not self._process or self._owner != os.getpid():
      return ''
    process, self._process = self._process, None
    atexit.unregister(self.close)
    try:
      process.communicate(timeout=1)
    except (OSError, ValueError, subprocess.TimeoutExpired):
      process.kill()
      process.wait()
    if hasattr(signal, 'SIGALRM') and process.returncode == -signal.SIGALRM:
      return f'its decoder takes more than {SECONDS} s'
    return f'its decoder ends with code {process.returncode}'


def _receive(stream: BinaryIO) -> np.ndarray:
  line = stream.readline()
  if not line:
    raise EOFError
  answer = json.loads(line)
  if 'error' in answer:
    raise DecodingError(answer['error'])
  dtype = np.dtype(answer['dtype'])
  size = dtype.itemsize * math.prod(answer['shape'])
  values = stream.read(size)
  if len(values) < size:
    raise EOFError
  return np.frombuffer(values, dtype).reshape(answer['shape'])


def _decode(decoder: str, dataset: pydicom.Dataset) -> np.ndarray:
  dataset.pixel_array_options(decoding_plugin=decoder)
  return dataset.pixel_array


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
  while True:
    try:
      decoder, dataset = pickle.load(requests)
    except EOFError:
      return
    # Unhandled, the alarm ends the process wherever it is.
    if hasattr(signal, 'alarm'):
      signal.alarm(SECONDS)
    try:
      values = _decode(decoder, dataset)
      answer = {'dtype': values.dtype.str, 'shape': values.shape}
      data = values.tobytes()
    # Broken pixel data surfaces as nearly any exception of NumPy or a codec.
    except Exception as e:
      answer, data = {'error': f'{type(e).__name__}: {e}'}, b''
    if hasattr(signal, 'alarm'):
      signal.alarm(0)
    answers.write(json.dumps(answer).encode() + b'\n' + data)
    answers.flush()


if __name__ == '__main__':
  # An interrupt is for who waits for an answer.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # What a library in C prints must not get between the answers.
  answers = os.fdopen(os.dup(1), 'wb')
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  _serve(sys.stdin.buffer, answers)
