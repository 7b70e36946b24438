"""A stand-in for the Hugging Face Hub: as a filesystem, and as a server.

Both answer from the same repositories: the filesystem as huggingface_hub's
does, without it; the server what huggingface_hub itself asks for.
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
  """A repository of a model.

  Attributes:
    revisions: name -> path -> content.
    token: without which it is not there, if it is private.
    gated: whether it is listed, and none of its files given.
  """

  revisions: dict
  token: str = ''
  gated: bool = False


def _entries(files, inner):
  """Names directly below a folder -> size, None for a folder."""
  prefix = f'{inner}/' if inner else ''
  found = {}
  for path, data in files.items():
    if path.startswith(prefix):
      name, deeper, _ = path.removeprefix(prefix).partition('/')
      found[prefix + name] = None if deeper else len(data)
  return found


class FileSystem(fsspec.AbstractFileSystem):
  """As `huggingface_hub.HfFileSystem`, as far as it is read."""

  protocol = 'hf'
  root_marker = ''

  def __init__(self, repositories, login, **kwargs):
    super().__init__(**kwargs)
    self._repositories, self._login = repositories, login
    self._known = {}  # As it keeps listings, and what it did not find.

  def invalidate_cache(self, path=None):
    self._known.clear()

  def _resolve(self, path):
    """The root as it writes it, the path below it, and the files."""
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
    assert block_size == 0, 'a request for every 5 MB'
    return io.BytesIO(files[inner])


def serve(repositories):
  """A server on 127.0.0.1, which notes the paths it is asked for in `asked`.

  Args:
    repositories: name -> `Repository`.

  Returns:
    `http.server.ThreadingHTTPServer`, to be started and stopped.
  """

  class Handler(server.BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks in order to list and read files."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):  # noqa: N802
      self.server.asked.append(self.path)
      self._answer(*self._found())

    def _found(self):
      """Status, headers and body."""
      found = _ROUTE.fullmatch(parse.urlsplit(self.path).path)
      repository = repositories.get(found['repo']) if found else None
      if repository is None:
        return 404, {'X-Error-Code': 'RepoNotFound'}, b''
      if repository.token:
        if self.headers['Authorization'] != f'Bearer {repository.token}':
          said = 'Invalid username or password.'
          return 401, {'X-Error-Message': said}, b''
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

    def _answer(self, status, headers, body):
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name, value)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *args):
      pass

  found = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  found.daemon_threads = True
  found.asked = []
  return found
