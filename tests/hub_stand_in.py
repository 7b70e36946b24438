"""Stand-ins for the Hugging Face Hub: a filesystem and a server.

Both serve the same repositories. The filesystem behaves like huggingface_hub's,
without needing it; the server supports the requests of huggingface_hub itself.
"""

from http import server
import io
import json
import re
from typing import NamedTuple
from urllib import parse

import fsspec

_PATH = re.compile(
  r'(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>refs/pr/\w+|[^/]+))?(/(?P<inner>.*))?'
)
_ROUTE = re.compile(
  r'(/api/models)?/(?P<repo>[^/]+/[^/]+)'
  r'(/(?P<what>revision|tree|resolve)/(?P<revision>[^/]+)(/(?P<inner>.*))?)?'
)


class Repository(NamedTuple):
  """A model repository.

  Attributes:
    revisions: {name of the revision: {path: content}}.
    token: token that a private repository needs; '' for a public one.
    gated: whether its files are listed but not readable.
  """

  revisions: dict
  token: str = ''
  gated: bool = False


def _entries(files, inner):
  """Returns {path: size} of a folder's entries; folders have size None."""
  prefix = f'{inner}/' if inner else ''
  found = {}
  for path, data in files.items():
    if path.startswith(prefix):
      name, deeper, _ = path.removeprefix(prefix).partition('/')
      found[prefix + name] = None if deeper else len(data)
  return found


class FileSystem(fsspec.AbstractFileSystem):
  """Behaves like `huggingface_hub.HfFileSystem`, for reading only."""

  protocol = 'hf'
  root_marker = ''

  def __init__(self, repositories, login, **kwargs):
    super().__init__(**kwargs)
    self._repositories, self._login = repositories, login
    self._known = {}  # The real one caches listings and missing paths, too.

  def invalidate_cache(self, path=None):
    self._known.clear()

  def _resolve(self, path):
    """Returns the root in its notation, the path below it, and all files."""
    path = self._strip_protocol(path).removeprefix('models/')
    if not path:
      raise NotImplementedError('Access to repositories lists')
    if not (found := _PATH.fullmatch(path)):
      raise ValueError(f"Repository id must be 'namespace/name', got '{path}'.")
    root = path.removesuffix(f'/{found["inner"]}')
    if root not in self._known:
      self._known[root] = self._find(found['repo'], found['revision'])
    if isinstance(self._known[root], str):
      raise FileNotFoundError(f'{path} ({self._known[root]})')
    return root.rstrip('/'), found['inner'] or '', self._known[root]

  def _find(self, name, revision):
    repository = self._repositories.get(name)
    if repository is None or repository.token not in ('', self._login['token']):
      return 'repository not found'
    revision = parse.unquote(revision or 'main')
    return dict(repository.revisions.get(revision, {})) or 'revision not found'

  def walk(self, path, **kwargs):
    root, inner, _ = self._resolve(path)
    yield from super().walk(f'{root}/{inner}'.rstrip('/'), **kwargs)

  def ls(self, path, detail=True, **kwargs):
    root, inner, files = self._resolve(path)
    if not (found := _entries(files, inner)):
      raise FileNotFoundError(path)
    return [
      {
        'name': f'{root}/{name}',
        'size': size or 0,
        'type': 'directory' if size is None else 'file',
        'last_commit': None,
      }
      for name, size in found.items()
    ]

  def _open(self, path, mode='rb', block_size=None, **kwargs):
    root, inner, files = self._resolve(path)
    if self._repositories[root.partition('@')[0]].gated:
      raise PermissionError('403 Client Error.\n\nCannot access gated repo')
    assert block_size == 0, 'the Hub would get a request for every 5 MB'
    return io.BytesIO(files[inner])


def make_server(repositories):
  """Makes a server on 127.0.0.1.

  Args:
    repositories: name -> `Repository`.

  Returns:
    A server that the caller starts and stops. Its attribute `requests` lists
    the paths of all requests.
  """

  class Handler(server.BaseHTTPRequestHandler):
    """Handles the requests with which huggingface_hub lists and reads files."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):  # noqa: N802
      self.server.requests.append(self.path)
      self._send(*self._response())

    def _response(self):
      """Returns status, headers and body."""
      found = _ROUTE.fullmatch(parse.urlsplit(self.path).path)
      repository = repositories.get(found['repo']) if found else None
      if repository is None:
        return 404, {'X-Error-Code': 'RepoNotFound'}, b''
      if repository.token:
        if self.headers['Authorization'] != f'Bearer {repository.token}':
          message = 'Invalid username or password.'
          return 401, {'X-Error-Message': message}, b''
      files = repository.revisions.get(
        parse.unquote(found['revision'] or 'main')
      )
      if files is None:
        return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
      inner = parse.unquote(found['inner'] or '')
      if found['what'] == 'resolve':
        if repository.gated:
          return 403, {'X-Error-Code': 'GatedRepo'}, b''
        return 200, {}, files[inner]
      if found['what'] != 'tree':
        return 200, {}, json.dumps({'id': found['repo']}).encode()
      entries = [
        {'type': 'directory', 'path': path, 'oid': '0' * 40}
        if size is None
        else {'type': 'file', 'path': path, 'oid': '0' * 40, 'size': size}
        for path, size in _entries(files, inner).items()
      ]
      if not entries:
        return 404, {'X-Error-Code': 'EntryNotFound'}, b''
      return 200, {}, json.dumps(entries).encode()

    def _send(self, status, headers, body):
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name, value)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *args):
      pass

  hub = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  hub.daemon_threads = True
  hub.requests = []
  return hub
