"""The files of a bundle, verified as they are read.

README.md (the model card)  config.json  metrics.json  weights.safetensors
seen.csv: what the model has seen; bundles of earlier versions have none
manifest.json: the format, the name, and the SHA-256 of each of the others
"""

from collections.abc import Callable
from collections.abc import Iterable
import errno
import hashlib
import pathlib
from typing import NamedTuple

import ml_collections

import mtnet_jax
from mtnet_jax.storage import files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import shipped
from mtnet_jax.storage import tensors
from mtnet_jax.storage import texts
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

CONFIG, METRICS, CARD = 'config.json', 'metrics.json', 'README.md'
WEIGHTS, MANIFEST = 'weights.safetensors', 'manifest.json'
FILES = (CARD, CONFIG, METRICS, WEIGHTS)
# The second one may hold several members, and say how their outputs are turned
# into an answer.
FORMAT = 2
_READABLE = (1, 2)
_MAX_MEMBERS = 64
# Of every file that is no file of weights.
_MAX_BYTES = 64 << 20
_MAX_REASON = 300  # letters


class Bundle(NamedTuple):
  """What is in a bundle.

  Attributes:
    name: of the model.
    config: config.json, of its first member.
    metrics: metrics.json.
    card: the model card, Markdown, without what the Hub reads of README.md.
    members: the variables of each member, stage name -> {'params',
      'batch_stats'} of NumPy arrays.
    symmetries: whether outputs are averaged over rotations and reflections.
    temperature: by which logits of malignancy are divided.
    seen: what any of the members has seen; None where no list was kept.
  """

  name: str
  config: ml_collections.ConfigDict
  metrics: dict
  card: str
  members: tuple
  symmetries: bool = False
  temperature: float = 1.0
  seen: seen_lib.Seen | None = None


def damage(folder):
  """Turns errors that a damaged model causes into `errors.InputError`."""
  return errors.of_wrong_values(
    f'{folder} is damaged, or was not written by mtnet_jax',
    way_out='Get the model again.',
  )


def is_bundle(folder):
  """Whether a folder holds a bundle, perhaps a damaged one."""
  folder = pathlib.Path(folder)
  return (folder / MANIFEST).exists() or (folder / WEIGHTS).exists()


def read(folder, *, check_variables=None):
  """Reads a bundle: first what is small, then what that asks for.

  Args:
    folder: `pathlib.Path` of it.
    check_variables: (config, shapes of a member's variables) -> nothing, or an
      `errors.InputError` where they do not belong together. It traces networks,
      and is not asked about models that come with the package.

  Raises:
    errors.InputError: it is damaged, changed, or of another format.
  """
  manifest = files.read_json(folder / MANIFEST)
  found = manifest.get('format') if isinstance(manifest, dict) else None
  if found not in _READABLE:
    raise errors.InputError(
      f'{folder} is a bundle of format {str(found)[:20]}, this version reads'
      f' {FORMAT}: use the version of mtnet_jax that wrote it.'
    )
  texts.check_name(manifest.get('name'), folder / MANIFEST)
  listed = manifest.get('files', {})
  for name in (CARD, CONFIG, METRICS):
    _verify(folder / name, listed.get(name), max_bytes=_MAX_BYTES)
  count = _number(folder, manifest, 'members', 1, least=1, most=_MAX_MEMBERS)
  config, metrics = workdir.read_config(folder), workdir.read_metrics(folder)
  card = files.read_bytes(folder / CARD).decode('utf-8')
  texts.check_card(card, folder / CARD)
  weights = folder / WEIGHTS
  _check_ordinary(weights)
  members = _members(tensors.header(weights), count, weights)
  if check_variables and not shipped.is_shipped(folder):
    for shapes in members:
      _check_variables(check_variables, config, shapes, weights)
  _verify(weights, listed.get(WEIGHTS))
  variables = tensors.read(weights)
  tensors.check_finite(variables, weights)
  return Bundle(
    name=manifest['name'],
    config=config,
    metrics=metrics,
    card=texts.without_front_matter(card),
    members=_members(variables, count, weights),
    symmetries=manifest.get('symmetries', False) is True,
    temperature=_number(
      folder, manifest, 'temperature', 1.0, least=0.01, most=100.0
    ),
    seen=_read_seen(folder, manifest),
  )


def _check_variables(check, config, shapes, weights):
  try:
    check(config, shapes)
  except errors.InputError as error:
    # It may quote names of the file.
    reason = str(error).rstrip('.')
    if len(reason) > _MAX_REASON:
      reason = f'{reason[:_MAX_REASON]}...'
    raise errors.InputError(
      f'{weights}: {reason}. Get the bundle again.'
    ) from error


def _members(tree, count, weights):
  """The members in the variables, or their shapes, of a file."""
  if count == 1:
    return (tree,)
  names = [str(i) for i in range(count)]
  if tree.keys() != set(names):
    raise errors.InputError(
      f'{weights} and {MANIFEST} do not belong together: not all of {count}'
      ' members, and nothing else. Get the bundle again.'
    )
  return tuple(tree[name] for name in names)


def _read_seen(folder, manifest):
  """The list of a bundle, None where its manifest names none."""
  listed = manifest.get('files', {})
  if seen_lib.FILE not in listed:
    return None
  _verify(
    folder / seen_lib.FILE,
    listed[seen_lib.FILE],
    max_bytes=_MAX_BYTES,
  )
  return seen_lib.read(folder / seen_lib.FILE)


def _number(folder, manifest, key, default, *, least, most):
  """A number of a manifest, which anyone may have written."""
  value = manifest.get(key, default)
  if type(value) is not type(default) or not least <= value <= most:
    raise errors.InputError(
      f"{folder / MANIFEST}: '{key}' must be between {least} and {most}. Get"
      ' the bundle again.'
    )
  return value


def _check_ordinary(path):
  if not path.is_file():
    what = 'no ordinary file' if path.exists() else 'it is missing'
    raise errors.InputError(
      f'{path} cannot be read ({what}): get the bundle again.'
    )


def _verify(path, expected, *, max_bytes=None):
  try:
    if max_bytes is not None and path.stat().st_size > max_bytes:
      raise errors.InputError(
        f'{path} has more than {max_bytes >> 20} MiB: get the bundle again.'
      )
    found = file_digest(path)
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read ({error.strerror}): get the bundle again.'
    ) from error
  if found != expected:
    raise errors.InputError(
      f'{path} is damaged or was changed: its SHA-256 is not the one in'
      f' {MANIFEST}. Get the bundle again.'
    )


def file_digest(path):
  """SHA-256 of a file's bytes.

  Raises:
    OSError: it cannot be read, or is no ordinary file.
  """
  if path.exists() and not path.is_file():  # a pipe would block for ever
    raise OSError(errno.EINVAL, 'no ordinary file')
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write_manifest(folder, *, name, members, symmetries, temperature):
  """Writes the manifest, last, of the files that are in a folder."""
  changed = {
    key: value
    for key, value, plain in (
      ('members', members, 1),
      ('symmetries', symmetries, False),
      ('temperature', temperature, 1.0),
    )
    if value != plain
  }
  files.write_json(
    folder / MANIFEST,
    {
      # Versions before the second format would leave out what is new.
      'format': FORMAT if changed else 1,
      'name': name,
      'mtnet_jax': mtnet_jax.__version__,
      **changed,
      'files': {
        name: file_digest(folder / name)
        for name in (*FILES, seen_lib.FILE)
        if name in FILES or (folder / name).exists()
      },
    },
  )


class Source(NamedTuple):
  """A trained model that a run starts from.

  Attributes:
    config: its config, of its first member.
    load: reads the variables of some stages of the first member when they are
      needed: names -> {name: variables}.
    seen: what the model has seen; None where no list was kept.
  """

  config: ml_collections.ConfigDict
  load: Callable[[Iterable[str]], dict]
  seen: seen_lib.Seen | None


def read_source(path, *, check_variables=None):
  """The `Source` that a trained model is.

  Args:
    path: a run directory, a bundle, or the name of a shipped model.
    check_variables: as in `read`.

  Raises:
    errors.InputError: it is none of these, or damaged.
  """
  folder = shipped.folder_of(path)
  with damage(folder):
    if is_bundle(folder):
      bundle = read(folder, check_variables=check_variables)
      first = bundle.members[0]
      return Source(
        bundle.config, lambda names: {x: first[x] for x in names}, bundle.seen
      )
    return Source(
      workdir.read_config(folder),
      lambda names: workdir.load_variables(folder, names),
      seen_lib.read_if_there(folder),
    )
