"""Bundles: written from a run, verified and loaded as a model.

`mtnet_jax.bundle` says what is in one.
"""

import errno
import hashlib
import json
import pathlib
import re

import mtnet_jax
from mtnet_jax.inference import card
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model
from mtnet_jax.inference import remote
from mtnet_jax.models import nets
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
from mtnet_jax.storage import workdir
from mtnet_jax.system import compilation_cache
from mtnet_jax.system import errors

FORMAT = 1
_CONFIG, _METRICS, CARD = 'config.json', 'metrics.json', 'README.md'
_WEIGHTS, _MANIFEST = 'weights.safetensors', 'manifest.json'
_FILES = (CARD, _CONFIG, _METRICS, _WEIGHTS)
# The files that are downloaded from elsewhere. Of a run these are the ones that
# a model needs, not those that training needs.
_WANTED = re.compile(
  '|'.join(map(re.escape, (*_FILES, _MANIFEST))) + r'|checkpoints/[^/]+/best/.*'
)


def load(path):
  """Restores a trained model, on this process's first device.

  Compiled programs are kept on this disk, see `compilation_cache`.

  Args:
    path: a run directory or a bundle; or a URL of one, such as
      gs://bucket/run. A list of them makes an ensemble.

  Returns:
    A `model.Model`; of a list an `ensemble.Ensemble`.

  Raises:
    errors.InputError: there is no run or bundle, or it cannot be used.
  """
  compilation_cache.enable()
  if isinstance(path, (list, tuple)):
    return ensemble.Ensemble([load(one) for one in path])
  with remote.local_folder(path, wanted=_WANTED.fullmatch) as folder:
    try:
      with _damage(folder):
        return model.Model(**_read(folder, name=_name(path)))
    except errors.InputError as error:
      # The user knows a download by its address.
      raise errors.InputError(
        str(error).replace(str(folder), str(path))
      ) from error


def _damage(folder):
  return errors.of_wrong_values(
    f'{folder} is damaged, or was not written by mtnet_jax',
    way_out='Get the model again.',
  )


def _name(path):
  path = str(path)
  path = path if '://' in path else str(pathlib.Path(path).resolve())
  return path.rstrip('/').rpartition('/')[2]


def _read(folder, *, name):
  """Arguments of `model.Model`, of a bundle or a run directory."""
  if (folder / _MANIFEST).exists() or (folder / _WEIGHTS).exists():
    return _read_bundle(folder)
  config, metrics = workdir.read_config(folder), workdir.read_metrics(folder)
  trained = nets.names(config)
  missing = [name for name in nets.ORDER if name not in trained]
  if missing:
    raise errors.InputError(
      f'{folder} has no {" and no ".join(missing)} network, as its'
      f' config.stages is {", ".join(config.stages)} and its strategy'
      f' {config.strategy!r}: a model has all of {", ".join(nets.ORDER)}.'
    )
  return {
    'name': name,
    'config': config,
    'metrics': metrics,
    'card': card.model_card(name, config, metrics),
    'variables': workdir.load_variables(folder, trained),
  }


def _read_bundle(folder):
  manifest = files.read_json(folder / _MANIFEST)
  found = manifest.get('format') if isinstance(manifest, dict) else None
  if found != FORMAT:
    raise errors.InputError(
      f'{folder} is a bundle of format {found}, this version reads {FORMAT}:'
      ' use the version of mtnet_jax that wrote it.'
    )
  for name in _FILES:
    _verify(folder / name, manifest.get('files', {}).get(name))
  return {
    'name': manifest['name'],
    'config': workdir.read_config(folder),
    'metrics': workdir.read_metrics(folder),
    'card': files.read_bytes(folder / CARD).decode('utf-8'),
    'variables': tensors.read(folder / _WEIGHTS),
  }


def _verify(path, expected):
  try:
    found = _digest(path)
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read ({error.strerror}): get the bundle again.'
    ) from error
  if found != expected:
    raise errors.InputError(
      f'{path} is damaged or was changed: its SHA-256 is not the one in'
      f' {_MANIFEST}. Get the bundle again.'
    )


def _digest(path):
  if path.exists() and not path.is_file():  # a pipe would block for ever
    raise OSError(errno.EINVAL, 'no ordinary file')
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write(run, out, *, name=None):
  """Packs a finished run.

  Args:
    run: its directory, or a URL of it.
    out: the folder to make; it may exist if it is empty.
    name: of the model; default: of the run directory.

  Raises:
    errors.InputError: the run cannot be used, or `out` not written.
  """
  with (
    remote.local_folder(run, wanted=_WANTED.fullmatch) as folder,
    _damage(folder),
  ):
    content = _read(folder, name=name or _name(run))
  config, variables = content['config'], content['variables']
  nets.check_variables(config, variables)
  with config.unlocked():
    # The path to the data on this machine concerns nobody else.
    config.dataset.data_dir = ''
  with files.new_folder(out) as staged:
    files.write_json(staged / _CONFIG, json.loads(config.to_json()))
    files.write_json(staged / _METRICS, content['metrics'])
    files.write_text(
      staged / CARD,
      card.model_card(content['name'], config, content['metrics']),
    )
    tensors.write(staged / _WEIGHTS, variables)
    files.write_json(
      staged / _MANIFEST,
      {
        'format': FORMAT,
        'name': content['name'],
        'mtnet_jax': mtnet_jax.__version__,
        'files': {name: _digest(staged / name) for name in _FILES},
      },
    )
