"""Decodes compressed images in a separate process.

Decoders are written in C: on damaged images some crash the process, or take
minutes. Here they only harm a worker process. The worker runs this file as a
script, so that it imports nothing but pydicom and NumPy:

    python -P decoder.py

The worker writes an empty line when it is ready. For each pickled (decoder,
dataset, seconds) on its standard input it writes a line of JSON, followed by
the pixel values. It ends when its input ends.
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
from typing import IO
import weakref

import numpy as np
import pydicom

# Limit of processor time for a million pixels, which usually take some tenths
# of a second.
SECONDS = 3
_MILLION = 2**20
_HAS_TIMER = hasattr(signal, 'setitimer')
_TIMEOUT_CODE = -signal.SIGPROF if _HAS_TIMER else None

_decoders: 'weakref.WeakSet[Decoder]' = weakref.WeakSet()


class DecodingError(Exception):
  """An image cannot be decoded; the message says why."""


class StartError(Exception):
  """No image can be decoded, because the worker process does not start."""


class Decoder:
  """Decodes images in a worker process, which starts with the first image.

  If an image crashes the worker or takes too long, the next image starts a new
  worker.

  Attributes:
    seconds: limit of processor time for an image of up to a million pixels; it
      grows in proportion for larger images.
  """

  def __init__(self, seconds: float = SECONDS):
    self.seconds = seconds
    self._process: subprocess.Popen[bytes] | None = None
    self._lock = threading.Lock()
    _decoders.add(self)

  def __call__(self, dataset: pydicom.Dataset, decoder: str) -> np.ndarray:
    """Returns `dataset.pixel_array`.

    Args:
      dataset: a dataset with compressed pixels.
      decoder: pydicom's name of a decoder; '' for any.

    Returns:
      The raw pixel values.

    Raises:
      DecodingError: the pixels cannot be decoded.
      StartError: the worker process does not start.
    """
    pixels = dataset.Rows * dataset.Columns
    seconds = self.seconds * max(1, pixels / _MILLION)
    request = pickle.dumps((decoder, dataset, seconds))
    with self._lock:
      # A second try, since the first may have been killed because other
      # programs used up the memory.
      for _ in range(2):
        try:
          return self._ask(request)
        except (EOFError, BrokenPipeError):
          code = self._end()
        if code == _TIMEOUT_CODE:
          raise DecodingError(
            f'its decoder takes more than {seconds:g} s of processor time'
          )
    raise DecodingError(f'its decoder ends with code {code}')

  def close(self) -> None:
    """Ends the worker process; the next image starts a new one."""
    with self._lock:
      self._end()

  def _ask(self, request: bytes) -> np.ndarray:
    process = self._start()
    stdin, stdout = _pipes(process)
    try:
      _send(request, stdin)
      return _receive(stdout)
    except (DecodingError, EOFError, BrokenPipeError):
      raise
    except BaseException:
      # Interrupted half-way, the worker would answer the next request with the
      # pixels of this one.
      self._end()
      raise

  def _start(self) -> subprocess.Popen[bytes]:
    if self._process:
      return self._process
    try:
      # Unbuffered, because a fork would inherit both unwritten data and the
      # lock of a buffer that a thread of the parent is reading.
      process = subprocess.Popen(
        [sys.executable, '-P', __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
      )
    except OSError as e:
      raise StartError(f'{sys.executable}: {e.strerror}') from None
    self._process = process
    atexit.register(self.close)
    _, stdout = _pipes(process)
    try:
      ready = stdout.readline()
    except BaseException:
      self._end()
      raise
    if not ready:
      code = self._end()
      raise StartError(f'{sys.executable} -P {__file__} ends with code {code}')
    return process

  def _end(self) -> int | None:
    """Ends the worker; returns its exit code, or None if there is no worker."""
    process, self._process = self._process, None
    if not process:
      return None
    atexit.unregister(self.close)
    for pipe in _pipes(process):
      pipe.close()
    try:
      process.wait(timeout=1)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    return process.returncode

  def _forget(self) -> None:
    """Drops, in a fork, the worker and the lock, which belong to the parent."""
    self._lock = threading.Lock()
    process, self._process = self._process, None
    if process:
      # Open pipes in this fork would keep the worker alive after its parent.
      for pipe in _pipes(process):
        pipe.close()
      process.returncode = 0  # keeps Python from waiting for the worker
      atexit.unregister(self.close)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
  assert process.stdin and process.stdout  # `_start` asks for both
  return process.stdin, process.stdout


def _forget_all() -> None:
  for decoder in _decoders:
    decoder._forget()


if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=_forget_all)


def _send(data: bytes, stream: IO[bytes]) -> None:
  view = memoryview(data)
  while view:
    view = view[stream.write(view) :]


def _read(size: int, stream: IO[bytes]) -> bytes:
  parts = []
  while size:
    part = stream.read(size)
    if not part:
      raise EOFError
    parts.append(part)
    size -= len(part)
  return b''.join(parts)


def _receive(stream: IO[bytes]) -> np.ndarray:
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


def _answer_all(requests: IO[bytes], answers: IO[bytes]) -> None:
  while True:
    try:
      decoder, dataset, seconds = pickle.load(requests)
    except EOFError:
      return
    # Nothing handles the signal, so it ends the process even inside C code.
    _set_timer(seconds)
    answer: dict[str, object]
    try:
      values = _decode(decoder, dataset)
      answer = {'dtype': values.dtype.str, 'shape': values.shape}
      data = values.tobytes()
    # Broken pixel data can raise nearly any exception of NumPy or a codec.
    except Exception as e:
      answer, data = {'error': f'{type(e).__name__}: {e}'}, b''
    _set_timer(0)
    answers.write(json.dumps(answer).encode() + b'\n' + data)
    answers.flush()


def _set_timer(seconds: float) -> None:
  # Processor time rather than wall time, as the machine may be busy otherwise.
  if _HAS_TIMER:
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _main() -> None:
  # These signals are meant for the parent; this process ends with its parent.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  if _HAS_TIMER:
    # The parent may ignore or block this signal, and children inherit that.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
  # Output of C libraries must not mix with the answers.
  answers = os.fdopen(os.dup(1), 'wb')
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 1)
  os.dup2(nowhere, 2)
  answers.write(b'\n')
  answers.flush()
  _answer_all(sys.stdin.buffer, answers)


if __name__ == '__main__':
  _main()
