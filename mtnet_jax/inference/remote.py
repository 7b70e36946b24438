"""Provides folders of this disk, or of any URL that fsspec reads."""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import os
import pathlib
import re
import tempfile
import threading

import fsspec

from mtnet_jax.storage import shipped
from mtnet_jax.system import errors

# Filesystem -> the command that installs it.
_INSTALL = {
  'hf': "pip install 'mtnet_jax[hf]'",
  'gs': "pip install 'mtnet_jax[gcs]'",
  'gcs': "pip install 'mtnet_jax[gcs]'",
  's3': 'pip install s3fs',
}
# Filesystem -> arguments of `open`. Without blocks the Hub's streams a file;
# with them it sends one request per 5 MB.
_OPEN_KWARGS = {'hf': {'block_size': 0}}
# Filesystem -> what a user can do about a right address that is refused.
_PERMISSION = {
  'hf': ' (a private or gated model: `hf auth login`, or set HF_TOKEN)'
}
# Revisions of the Hub whose names contain slashes.
_REFERENCE = re.compile(r'@refs/(pr|convert)/')


# A run of the paper's networks has some hundred files and 0.6 GB.
_MAX_FILES = 10_000
_MAX_BYTES = 16 << 30
# This counts reports, logs and folders too, which are not downloaded.
_MAX_LISTED = 100_000
_NUM_THREADS = 8
_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def local_folder(
  path: str | os.PathLike[str], *, wanted: Callable[[str], object]
) -> Iterator[pathlib.Path]:
  """Yields a folder on this disk with the files of a path or URL.

  Args:
    path: a folder of this disk or the name of a shipped model, which is not
      copied; or a URL such as gs://bucket/run or hf://owner/name, which is
      downloaded to a temporary folder.
    wanted: relative path -> whether to download the file.

  Yields:
    The folder; a download is deleted at the end of the context.

  Raises:
    errors.InputError: nothing is there, or it cannot be read.
  """
  url = str(path)
  if '://' not in url:
    yield shipped.folder_of(
      url, kinds='a run directory, a bundle, a URL of one'
    )
    return
  with tempfile.TemporaryDirectory(prefix='mtnet_jax-') as temporary:
    folder = pathlib.Path(temporary)
    try:
      num_files = _download(url, folder, wanted)
    except errors.InputError:
      raise
    # Each filesystem raises its own errors about network and credentials.
    except Exception as error:
      raise errors.InputError(_explain(url, error)) from error
    if not num_files:
      raise errors.InputError(
        f'{url} holds no run directory and no bundle: give the URL of the'
        ' folder that contains config.json.'
      )
    yield folder


def last_part(url: str) -> str:
  """Returns the last part of a URL, which names the model.

  A revision of the Hub belongs to the name before it, although it may contain
  slashes: hf://owner/name@refs/pr/1 gives 'name@refs-pr-1'.
  """
  if url.startswith('hf://'):
    url = _REFERENCE.sub(r'@refs-\1-', url)
    url = url.replace('%2F', '-').replace('%2f', '-')
  return url.rstrip('/').rpartition('/')[2]


def _download(url, folder, wanted):
  """Downloads the wanted files, and returns their number."""
  filesystem, root = fsspec.core.url_to_fs(url)
  # The cache of an earlier call may list what has changed since.
  filesystem.invalidate_cache()
  open_kwargs = _OPEN_KWARGS.get(_protocol(url), {})
  sources, listed_bytes = {}, 0
  for name, entry in _listed(url, filesystem, root.rstrip('/')):
    # A name with '..' would be written outside the folder.
    if '..' not in name.split('/') and wanted(name):
      sources[name] = entry['name']
      listed_bytes += entry.get('size') or 0
      _check_limits(url, len(sources), listed_bytes)
  lock, total = threading.Lock(), 0

  def fetch(name):
    nonlocal total
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (
      filesystem.open(sources[name], 'rb', **open_kwargs) as source,
      (folder / name).open('wb') as out,
    ):
      while chunk := source.read(_CHUNK_BYTES):
        # The server may have listed a wrong size.
        with lock:
          total += len(chunk)
        _check_limits(url, len(sources), total)
        out.write(chunk)

  # Threads, because each download waits for the network.
  with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
    for _ in pool.map(fetch, sources):
      pass
  return len(sources)


def _listed(url, filesystem, root):
  """Yields the path below `root` and the listing entry of each file."""
  num_listed, top = 0, None
  for path, folders, files in filesystem.walk(
    root, detail=True, on_error='raise'
  ):
    # The prefix of all names. It may differ from `root`: the Hub's filesystem
    # omits `models/`.
    top = path.rstrip('/') if top is None else top
    num_listed += 1 + len(folders) + len(files)
    if num_listed > _MAX_LISTED:
      raise errors.InputError(
        f'{url} lists more than {_MAX_LISTED} names, more than a run or bundle'
        ' has: check the address.'
      )
    for entry in files.values():
      yield entry['name'].removeprefix(top).lstrip('/'), entry


def _check_limits(url, num_files, num_bytes):
  if num_files > _MAX_FILES or num_bytes > _MAX_BYTES:
    raise errors.InputError(
      f'{url} has more than {_MAX_FILES} files or {_MAX_BYTES >> 30} GiB, more'
      ' than a run or bundle has: check the address.'
    )


def _protocol(url):
  return url.partition('://')[0]


def _explain(url, error):
  """Returns the message about a URL that cannot be read."""
  message = ' '.join(str(error).split())[:200] or type(error).__name__
  protocol = _protocol(url)
  if isinstance(error, ImportError):
    way_out = _INSTALL.get(
      protocol, f'install the fsspec implementation of {protocol}://'
    )
    return f'{url} cannot be read ({message}): {way_out}.'
  return (
    f'{url} cannot be read ({message}): check the address and the permissions'
    f' of this machine{_PERMISSION.get(protocol, "")}.'
  )
