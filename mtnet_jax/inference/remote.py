"""Folders on this disk, or at any URL that fsspec reads."""

from concurrent import futures
import contextlib
import pathlib
import re
import tempfile
import threading

import fsspec

from mtnet_jax.storage import shipped
from mtnet_jax.system import errors

# Filesystem -> what installs it.
_INSTALL = {
  'hf': "pip install 'mtnet_jax[hf]'",
  'gs': "pip install 'mtnet_jax[gcs]'",
  'gcs': "pip install 'mtnet_jax[gcs]'",
  's3': 'pip install s3fs',
}
# Filesystem -> how its files are opened: the Hub's streams one then, and would
# ask once for every 5 MB of it.
_OPENED = {'hf': {'block_size': 0}}
# Filesystem -> what its user can do where the address is right.
_PERMISSION = {
  'hf': ' (a private or gated model: `hf auth login`, or set HF_TOKEN)'
}
# Revisions of the Hub that hold slashes, as its filesystem reads them.
_REFERENCE = re.compile(r'@refs/(pr|convert)/')


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
      is; or a URL such as gs://bucket/run or hf://owner/name, downloaded to a
      temporary folder.
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


def last_part(url):
  """The last part of a URL, which names what lies there.

  At the Hub a revision belongs to the name before it, although it may hold
  slashes: 'name@refs-pr-1' of hf://owner/name@refs/pr/1.
  """
  if url.startswith('hf://'):
    url = _REFERENCE.sub(r'@refs-\1-', url)
    url = url.replace('%2F', '-').replace('%2f', '-')
  return url.rstrip('/').rpartition('/')[2]


def _download(url, folder, wanted):
  filesystem, root = fsspec.core.url_to_fs(url)
  # It remembers what it listed for, or did not find for, an earlier call.
  filesystem.invalidate_cache()
  opened = _OPENED.get(_protocol(url), {})
  sources, said = {}, 0
  for name, entry in _listed(url, filesystem, root.rstrip('/')):
    # A name with '..' would be written outside the folder.
    if '..' not in name.split('/') and wanted(name):
      sources[name] = entry['name']
      said += entry.get('size') or 0
      _check_limits(url, len(sources), said)
  counting, total = threading.Lock(), 0

  def fetch(name):
    nonlocal total
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (
      filesystem.open(sources[name], 'rb', **opened) as source,
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
  """The path below `root` of each file, and what is known of it, in bounds."""
  count, top = 0, None
  for path, folders, files in filesystem.walk(
    root, detail=True, on_error='raise'
  ):
    # The root as names begin with it: the Hub's has no `models/`.
    top = path.rstrip('/') if top is None else top
    count += 1 + len(folders) + len(files)
    if count > _MAX_LISTED:
      raise errors.InputError(
        f'{url} lists more than {_MAX_LISTED} names, which no run and no bundle'
        ' has: check the address.'
      )
    for entry in files.values():
      yield entry['name'].removeprefix(top).lstrip('/'), entry


def _check_limits(url, count, total):
  if count > _MAX_FILES or total > _MAX_BYTES:
    raise errors.InputError(
      f'{url} has more than {_MAX_FILES} files or {_MAX_BYTES >> 30} GiB, which'
      ' no run and no bundle has: check the address.'
    )


def _protocol(url):
  return url.partition('://')[0]


def _explain(url, error):
  message = ' '.join(str(error).split())[:200] or type(error).__name__
  protocol = _protocol(url)
  if isinstance(error, ImportError):
    way_out = _INSTALL.get(
      protocol, f'install what fsspec needs for {protocol}://'
    )
    return f'{url} cannot be read ({message}): {way_out}.'
  return (
    f'{url} cannot be read ({message}): check the address, and that this'
    f' machine may read it{_PERMISSION.get(protocol, "")}.'
  )
