"""Models of the Hugging Face Hub, through a stand-in and its own client."""

import inspect
import socket
import sys
import threading
from typing import NamedTuple

import doc_pages
import fsspec
from fsspec import config as fsspec_config
import hub_stand_in
import pytest

import mtnet_jax
from mtnet_jax import export
from mtnet_jax.inference import bundles
from mtnet_jax.inference import remote
from mtnet_jax.system import errors

_TOKEN = 'hf_made_up'
_REGISTERED = sys.modules['fsspec.registry']._registry


class _Hub(NamedTuple):
  """A Hub for tests: the stand-in, or a local server for the real client.

  Attributes:
    repositories: name -> `hub_stand_in.Repository`, for the test to fill.
    login: logs in with a token.
    requests: paths of the server's requests; None without a server.
  """

  repositories: dict
  login: object
  requests: list | None


@pytest.fixture(name='client')
def _client(monkeypatch):
  """Yields a function that points huggingface_hub to an endpoint and token."""
  hub = pytest.importorskip('huggingface_hub', reason='needs the extra `hf`')
  # With telemetry, its user agent needs a list from the real Hub.
  disabled = 'huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY'
  monkeypatch.setattr(disabled, True)
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  hub.close_session()  # An open session would keep its old proxies.

  def read_from(endpoint, token=''):
    class FileSystem(hub.HfFileSystem):
      def __init__(self, **kwargs):
        options = {'endpoint': endpoint, 'token': token or False}
        super().__init__(**options, **kwargs)

    monkeypatch.setitem(_REGISTERED, 'hf', FileSystem)

  yield read_from
  hub.close_session()


@pytest.fixture(
  name='hub',
  params=['stand-in', pytest.param('client', marks=pytest.mark.extra)],
)
def _hub(request, monkeypatch):
  repositories = {}
  if request.param == 'stand-in':
    login = {'token': ''}
    monkeypatch.setitem(_REGISTERED, 'hf', hub_stand_in.FileSystem)
    monkeypatch.setitem(
      fsspec_config.conf, 'hf', {'repositories': repositories, 'login': login}
    )
    yield _Hub(repositories, lambda x: login.update(token=x), None)
    hub_stand_in.FileSystem.clear_instance_cache()
    return
  read_from = request.getfixturevalue('client')
  stand_in = hub_stand_in.make_server(repositories)
  threading.Thread(target=stand_in.serve_forever).start()
  endpoint = f'http://127.0.0.1:{stand_in.server_port}'
  read_from(endpoint)
  yield _Hub(repositories, lambda x: read_from(endpoint, x), stand_in.requests)
  stand_in.shutdown()
  stand_in.server_close()


def _files_of(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.mark.parametrize(
  ('address', 'content'),
  [
    ('hf://owner/name', b'main'),
    ('hf://owner/name/', b'main'),
    ('hf://owner/name@main', b'main'),
    ('hf://models/owner/name', b'main'),
    ('hf://owner/name@v1.0', b'first'),
    ('hf://owner/name@refs/pr/1', b'proposed'),
    ('hf://owner/name@feature%2Fx', b'branch'),
    ('hf://owner/name/a/b', b'main, below'),
    ('hf://owner/name@v1.0/a/b', b'first, below'),
    ('hf://owner/name@refs/pr/1/a/b', b'proposed, below'),
    ('hf://owner/name@feature%2Fx/a/b', b'branch, below'),
  ],
)
def test_a_revision_and_a_folder_are_found(hub, address, content):
  hub.repositories['owner/name'] = hub_stand_in.Repository(
    {
      revision: {
        'config.json': config,
        'a/b/config.json': config + b', below',
        '.gitattributes': b'unwanted',
        'checkpoints/fine/best/1/params/0': config,
        'checkpoints/fine/latest/1/state/0': b'unwanted',
      }
      for revision, config in (
        ('main', b'main'),
        ('v1.0', b'first'),
        ('refs/pr/1', b'proposed'),
        ('feature/x', b'branch'),
      )
    }
  )
  with remote.local_folder(address, wanted=bundles.WANTED.fullmatch) as folder:
    found = _files_of(folder)
  expected = {'config.json': content}
  if b'below' not in content:
    expected['checkpoints/fine/best/1/params/0'] = content
  assert found == expected
  if hub.requests is not None:
    assert sum('/resolve/' in path for path in hub.requests) == len(expected)


def test_a_bundle_and_a_run_load(hub, packed, made_run_dir, made_model):
  hub.repositories['owner/packed'] = hub_stand_in.Repository(
    {'main': _files_of(packed)}
  )
  hub.repositories['owner/run'] = hub_stand_in.Repository(
    {'v1': _files_of(made_run_dir)}
  )
  packed_model = mtnet_jax.load('hf://owner/packed')
  run_model = mtnet_jax.load('hf://owner/run@v1')
  assert (packed_model.name, run_model.name) == ('made', 'run-v1')
  assert packed_model.metrics == run_model.metrics == made_model.metrics


@pytest.mark.parametrize(
  ('address', 'reason'),
  [
    ('hf://owner/none', 'repository not found'),
    ('hf://owner/name@none', 'revision not found'),
    ('hf://owner/name/none', r'\(owner/name/none\)'),
    # Over https the client also turns the Hub's 401 into this message.
    ('hf://owner/private', 'repository not found|401 Unauthorized'),
    ('hf://owner/gated', 'Cannot access gated repo'),
    ('hf://name', "must be 'namespace/name'"),
    ('hf://', 'Access to .*repositories lists'),
  ],
)
def test_unreadable_addresses_are_refused_in_one_line(hub, address, reason):
  files = {'main': {'config.json': b'{}'}}
  for name, changes in (
    ('name', {}),
    ('private', {'token': _TOKEN}),
    ('gated', {'gated': True}),
  ):
    hub.repositories[f'owner/{name}'] = hub_stand_in.Repository(
      files, **changes
    )
  with pytest.raises(errors.InputError, match=reason) as caught:
    mtnet_jax.load(address)
  message = str(caught.value)
  assert message.startswith(f'{address} cannot be read (')
  assert 'check the address' in message and '`hf auth login`' in message
  assert '\n' not in message


def test_a_private_model_is_read_with_its_token(hub):
  hub.repositories['owner/private'] = hub_stand_in.Repository(
    {'main': {'config.json': b'private'}}, token=_TOKEN
  )
  hub.login(_TOKEN)
  with remote.local_folder('hf://owner/private', wanted=bool) as folder:
    assert _files_of(folder) == {'config.json': b'private'}


def test_a_missing_model_is_looked_for_again(hub):
  """In a notebook, a user may upload a missing model, and then another one."""
  address = 'hf://owner/late'
  with pytest.raises(errors.InputError, match='repository not found'):
    mtnet_jax.load(address)
  for content in ({'config.json': b'1'}, {'metrics.json': b'2'}):
    hub.repositories['owner/late'] = hub_stand_in.Repository({'main': content})
    with remote.local_folder(address, wanted=bool) as folder:
      assert _files_of(folder) == content


def test_a_command_ends_with_the_code_of_bad_input(
  hub, tmp_path, monkeypatch, capsys
):
  argv = ['export', '--checkpoint=hf://owner/none', f'--out={tmp_path}/out']
  monkeypatch.setattr(sys, 'argv', argv)
  with pytest.raises(SystemExit) as stopped:
    errors.exit_on_input_error(export.main)
  assert stopped.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert 'hf://owner/none cannot be read' in line
  assert not (tmp_path / 'out').exists()


@pytest.mark.extra
def test_without_a_network_the_error_is_one_line(client):
  with socket.socket() as closed:  # Bound, without a listener.
    closed.bind(('127.0.0.1', 0))
    client(f'http://127.0.0.1:{closed.getsockname()[1]}')
    with pytest.raises(errors.InputError, match='refused.*check the') as caught:
      mtnet_jax.load('hf://owner/name')
  assert '\n' not in str(caught.value)


@pytest.mark.extra
def test_the_command_of_the_documentation_uploads_a_bundle():
  upload = pytest.importorskip(
    'huggingface_hub.cli.upload', reason='needs the extra `hf`'
  ).upload
  page = doc_pages.text('docs/models.md')
  assert '\n    hf upload OWNER/NAME demo-bundle .\n' in page
  # The positional arguments come in this order.
  assert [*inspect.signature(upload).parameters][:3] == [
    'repo_id',
    'local_path',
    'path_in_repo',
  ]


def test_a_missing_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  monkeypatch.delitem(_REGISTERED, 'hf', raising=False)
  with pytest.raises(
    errors.InputError, match=r"pip install 'mtnet_jax\[hf\]'"
  ) as caught:
    mtnet_jax.load('hf://owner/name')
  assert '\n' not in str(caught.value)
  with pytest.raises(ImportError):
    fsspec.filesystem('hf')


@pytest.mark.parametrize(
  ('address', 'name'),
  [
    ('hf://owner/name', 'name'),
    ('hf://owner/name/', 'name'),
    ('hf://owner/name@v1.0', 'name-v1.0'),
    ('hf://owner/name@refs/pr/1', 'name-refs-pr-1'),
    ('hf://owner/name@feature%2Fx', 'name-feature-x'),
    ('hf://owner/name/folder', 'folder'),
    ('hf://owner/name@refs/pr/1/folder', 'folder'),
    ('gs://bucket/run', 'run'),
  ],
)
def test_a_run_is_named_after_its_address(address, name):
  assert bundles.name_of(address) == name
