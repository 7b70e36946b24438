"""Reads the files of a bundle and verifies them on the way.

A bundle is a folder that holds a trained model:

    README.md            the model card
    config.json          the config of its first member
    metrics.json         the results of the model; other entries are those of
                         its first member's run
    weights.safetensors  the variables of all members
    seen.csv             the nodules and patients that the model has seen;
                         bundles of earlier versions have none
    manifest.json        format, name, and the SHA-256 of every other file
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import errno
import hashlib
import os
import pathlib
from typing import Any
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
# Format 2 added several members, averaging over symmetries and a temperature.
FORMAT = 2
_READABLE = (1, 2)
_MAX_MEMBERS = 64
# Limit for every file except the weights.
_MAX_BYTES = 64 << 20
_MAX_REASON = 300  # characters

# (config, shapes of a member's variables) -> raises where they do not match.
CheckVariables = Callable[
  [ml_collections.ConfigDict, Mapping[str, Any]], object
]


class Bundle(NamedTuple):
  """The contents of a bundle.

  Attributes:
    name: name of the model.
    config: config.json, the config of the first member.
    metrics: metrics.json.
    card: the model card in Markdown, without the YAML front matter that
      README.md holds for the Hugging Face Hub.
    members: the variables of each member, stage name -> {'params',
      'batch_stats'} of NumPy arrays.
    symmetries: whether outputs are averaged over rotations and reflections.
    temperature: the malignancy logits are divided by it.
    seen: what any of the members has seen; None where no list was kept.
  """

  name: str
  config: ml_collections.ConfigDict
  metrics: dict[str, Any]
  card: str
  members: tuple[dict[str, Any], ...]
  symmetries: bool = False
  temperature: float = 1.0
  seen: seen_lib.Seen | None = None


def damage(
  folder: str | os.PathLike[str],
) -> contextlib.AbstractContextManager[None]:
  """Turns errors that a damaged model causes into `errors.InputError`."""
  return errors.of_wrong_values(
    f'{folder} is damaged, or was not written by mtnet_jax',
    way_out='Get the model again.',
  )


def is_bundle(folder: str | os.PathLike[str]) -> bool:
  """Returns whether a folder holds a bundle, even a damaged one."""
  folder = pathlib.Path(folder)
  return (folder / MANIFEST).exists() or (folder / WEIGHTS).exists()


def read(
  folder: pathlib.Path, *, check_variables: CheckVariables | None = None
) -> Bundle:
  """Reads a bundle; small files are checked before the weights are loaded.

  Args:
    folder: folder of the bundle.
    check_variables: called with the config and the shapes of each member's
      variables; raises `errors.InputError` if they do not belong together. It
      traces networks, so it is skipped for models that come with the package.

  Raises:
    errors.InputError: the bundle is damaged, changed, or of another format.
  """
  manifest = files.read_json(folder / MANIFEST)
  found = manifest.get('format') if isinstance(manifest, dict) else None
  if found not in _READABLE:
    raise errors.InputError(
      f'{folder} is a bundle of format {str(found)[:20]}, but this version'
      f' reads {FORMAT}: use the version of mtnet_jax that wrote it.'
    )
  texts.check_name(manifest.get('name'), folder / MANIFEST)
  listed = manifest.get('files', {})
  for name in (CARD, CONFIG, METRICS):
    _verify(folder / name, listed.get(name), max_bytes=_MAX_BYTES)
  num_members = _number(
    folder, manifest, 'members', 1, low=1, high=_MAX_MEMBERS
  )
  config, metrics = workdir.read_config(folder), workdir.read_metrics(folder)
  card = files.read_bytes(folder / CARD).decode('utf-8')
  texts.check_card(card, folder / CARD)
  weights = folder / WEIGHTS
  _check_regular(weights)
  members = _members(tensors.header(weights), num_members, weights)
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
    members=_members(variables, num_members, weights),
    symmetries=manifest.get('symmetries', False) is True,
    temperature=_number(
      folder, manifest, 'temperature', 1.0, low=0.01, high=100.0
    ),
    seen=_read_seen(folder, manifest),
  )


def _check_variables(check, config, shapes, weights):
  try:
    check(config, shapes)
  except errors.InputError as error:
    # It may quote names from the file, which can be long.
    reason = str(error).rstrip('.')
    if len(reason) > _MAX_REASON:
      reason = f'{reason[:_MAX_REASON]}...'
    raise errors.InputError(
      f'{weights}: {reason}. Get the bundle again.'
    ) from error


def _members(
  tree: dict[str, Any], num_members: int, weights: pathlib.Path
) -> tuple[dict[str, Any], ...]:
  """Splits the variables of a file, or their shapes, into members."""
  if num_members == 1:
    return (tree,)
  names = [str(i) for i in range(num_members)]
  if tree.keys() != set(names):
    raise errors.InputError(
      f'{weights} and {MANIFEST} do not belong together: the weights are not'
      f' those of exactly {num_members} members. Get the bundle again.'
    )
  return tuple(tree[name] for name in names)


def _read_seen(folder, manifest):
  """Reads a bundle's seen.csv; None if the manifest does not list it."""
  listed = manifest.get('files', {})
  if seen_lib.FILE not in listed:
    return None
  _verify(
    folder / seen_lib.FILE,
    listed[seen_lib.FILE],
    max_bytes=_MAX_BYTES,
  )
  return seen_lib.read(folder / seen_lib.FILE)


def _number(folder, manifest, key, default, *, low, high):
  """Returns a number of a manifest, which anyone may have written."""
  value = manifest.get(key, default)
  if type(value) is not type(default) or not low <= value <= high:
    raise errors.InputError(
      f"{folder / MANIFEST}: '{key}' must be between {low} and {high}. Get"
      ' the bundle again.'
    )
  return value


def _check_regular(path):
  if not path.is_file():
    what = 'not a regular file' if path.exists() else 'it is missing'
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


def file_digest(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file's bytes, as hexadecimal digits.

  Raises:
    OSError: the file cannot be read, or is not a regular file.
  """
  if path.exists() and not path.is_file():  # a pipe would block forever
    raise OSError(errno.EINVAL, 'not a regular file')
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write_manifest(
  folder: pathlib.Path,
  *,
  name: str,
  members: int,
  symmetries: bool,
  temperature: float,
) -> None:
  """Writes the manifest of a folder, after all its other files.

  Args:
    folder: the folder, with every other file of the bundle.
    name: name of the model.
    members: number of members.
    symmetries: as in `Bundle`.
    temperature: as in `Bundle`.
  """
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
      # Readers of format 1 would ignore these keys, so they must refuse it.
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
    config: the config of its first member.
    load: reads variables of the first member when it is called: stage names ->
      {name: variables}.
    seen: what the model has seen; None where no list was kept.
  """

  config: ml_collections.ConfigDict
  load: Callable[[Iterable[str]], dict[str, Any]]
  seen: seen_lib.Seen | None


def read_source(
  path: str | os.PathLike[str],
  *,
  check_variables: CheckVariables | None = None,
) -> Source:
  """Reads a trained model as the `Source` of another run.

  Args:
    path: a run directory, a bundle, or the name of a shipped model.
    check_variables: as in `read`.

  Raises:
    errors.InputError: `path` is none of these, or is damaged.
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
