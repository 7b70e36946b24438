"""Folders on this disk, or at any URL that fsspec reads."""

from concurrent import futures
import contextlib
import pathlib
import tempfile
import threading

import fsspec

from mtnet_jax.storage import shipped
from mtnet_jax.system import errors

# Filesystem -> what installs it.
_INSTALL = {
  'gs': "pip install 'mtnet_jax[gcs]'",
  'gcs': "pip install 'mtnet_jax[gcs]'",
  's3': 'pip install s3fs',
}


# A run of the paper's networks has some hundred files and 0.6 GB.
_MAX_FILES = 10_000
_MAX_BYTES = 16 << 30
# With reports, logs and folders, which are not downloaded.
_MAX_LISTED = 100_000
_NUM_AT_ONCE = 8
_PART = 1 << 20


@contextlib.contextmanager
def local_folder(path, *, wanted):
  """Yields a folder on this disk with the files of a folder anywhere.

  Args:
    path: a folder of this disk or the name of a shipped model, yielded as it
      is; or a URL such as gs://bucket/run, downloaded to a temporary folder.
    wanted: relative path -> whether to download the file.

  Yields:
    `pathlib.Path`; a download is deleted at the end of the context.

  Raises:
    errors.InputError: nothing is there, or it cannot be read.
  """
  url = str(path)
  if '://' not in url:
    yield shipped.folder_of(
      url, kinds='a run directory, a bundle, a URL of one'
    )
    return
  with tempfile.TemporaryDirectory(prefix='mtnet_jax-') as folder:
    folder = pathlib.Path(folder)
    try:
      count = _download(url, folder, wanted)
    except errors.InputError:
      raise
    # Every filesystem raises its own errors about network and credentials.
    except Exception as error:
      raise errors.InputError(_explain(url, error)) from error
    if not count:
      raise errors.InputError(
        f'{url} holds no run directory and no bundle: give the folder with'
        ' config.json in it.'
      )
    yield folder


def _download(url, folder, wanted):
  filesystem, root = fsspec.core.url_to_fs(url)
  root = root.rstrip('/')
  sources, said = {}, 0
  for entry in _listed(url, filesystem, root):
    source = entry['name']
    name = source.removeprefix(root).lstrip('/')
    # A name with '..' would be written outside the folder.
    if '..' not in name.split('/') and wanted(name):
      sources[name] = source
      said += entry.get('size') or 0
      _check_limits(url, len(sources), said)
  counting, total = threading.Lock(), 0

  def fetch(name):
    nonlocal total
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (
      filesystem.open(sources[name], 'rb') as source,
      (folder / name).open('wb') as out,
    ):
      while part := source.read(_PART):
        # Counted, whatever the server said.
        with counting:
          total += len(part)
        _check_limits(url, len(sources), total)
        out.write(part)

  # Several at once, because each waits for the network.
  with futures.ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
    for _ in pool.map(fetch, sources):
      pass
  return len(sources)


def _listed(url, filesystem, root):
  """What is known of each file, folder by folder, as far as the bounds go."""
  count = 0
  for _, folders, files in filesystem.walk(root, detail=True, on_error='raise'):
    count += 1 + len(folders) + len(files)
    if count > _MAX_LISTED:
      raise errors.InputError(
        f'{url} lists more than {_MAX_LISTED} names, which no run and no bundle'
        ' has: check the address.'
      )
    yield from files.values()


def _check_limits(url, count, total):
  if count > _MAX_FILES or total > _MAX_BYTES:
    raise errors.InputError(
      f'{url} has more than {_MAX_FILES} files or {_MAX_BYTES >> 30} GiB, which'
      ' no run and no bundle has: check the address.'
    )


def _explain(url, error):
  message = ' '.join(str(error).split())[:200] or type(error).__name__
  protocol = url.partition('://')[0]
  if isinstance(error, ImportError):
    way_out = _INSTALL.get(protocol, f'what fsspec needs for {protocol}://')
    return f'{url} cannot be read ({message}): install {way_out}.'
  return (
    f'{url} cannot be read ({message}): check the address, and that this'
    ' machine may read it.'
  )
