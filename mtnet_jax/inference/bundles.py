"""Loads trained models: a run, a bundle, or one that comes with the package.

`mtnet_jax.bundle` describes bundles, and `packing` writes them.
"""

from collections.abc import Sequence
import os
import pathlib
import re

import jax

from mtnet_jax.inference import card
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model
from mtnet_jax.inference import remote
from mtnet_jax.models import nets
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import texts
from mtnet_jax.storage import workdir
from mtnet_jax.system import compilation_cache
from mtnet_jax.system import errors

# The files to download from a URL. For a run these are the best checkpoints and
# the histories that tell which epoch is the best, without the training state.
WANTED = re.compile(
  '|'.join(
    map(re.escape, (*bundle_files.FILES, bundle_files.MANIFEST, seen_lib.FILE))
  )
  + r'|checkpoints/[^/]+/best/.*'
  + r'|checkpoints/[^/]+/latest/(\.replaced/)?[^/]+/meta/metadata'
)


# What a user may load: a path, a URL, or the name of a shipped model.
_Source = str | os.PathLike[str]


def load(
  path: _Source | Sequence[_Source],
) -> model.Model | ensemble.Ensemble:
  """Loads a trained model onto this process's first device.

  Compiled programs are cached on this disk; see `compilation_cache`.

  Args:
    path: a run directory or a bundle; a URL of one, such as gs://bucket/run or
      hf://owner/name (optionally followed by @revision and /folder); or the
      name of a model that comes with the package, such as 'lidc-small'. A list
      of these makes an ensemble.

  Returns:
    An `ensemble.Ensemble` for a list and for a bundle with several members or
    with symmetries; a `model.Model` for anything else.

  Raises:
    errors.InputError: there is no run or bundle, it cannot be used, or the
      devices that JAX_PLATFORMS names are missing.
  """
  compilation_cache.enable()
  with errors.of_devices():
    jax.devices()
  if isinstance(path, Sequence) and not isinstance(path, str):
    return ensemble.Ensemble([load(one) for one in path])
  with remote.local_folder(path, wanted=WANTED.fullmatch) as folder:
    try:
      with bundle_files.damage(folder):
        return _model(read(folder, name=name_of(path)))
    except errors.InputError as error:
      # A downloaded folder is temporary: the user knows the URL.
      raise errors.InputError(
        str(error).replace(str(folder), str(path))
      ) from error


def name_of(path: _Source) -> str:
  """Returns the name of a model: the last part of its path or URL."""
  path = str(path)
  if '://' in path:
    return texts.as_name(remote.last_part(path))
  return texts.as_name(pathlib.Path(path).resolve().name)


def read(folder: pathlib.Path, *, name: str) -> bundle_files.Bundle:
  """Reads a bundle, or makes one of a run directory.

  Args:
    folder: a folder on this disk.
    name: name of the model, if the folder is a run.

  Raises:
    errors.InputError: it cannot be used.
  """
  if bundle_files.is_bundle(folder):
    return bundle_files.read(folder, check_variables=nets.check_variables)
  return _of_run(folder, name)


def _of_run(folder: pathlib.Path, name: str) -> bundle_files.Bundle:
  config, metrics = workdir.read_config(folder), workdir.read_metrics(folder)
  trained = nets.names(config)
  missing = [stage for stage in nets.ORDER if stage not in trained]
  if missing:
    raise errors.InputError(
      f'{folder} has no {" and no ".join(missing)} network, because its'
      f' config.stages is {", ".join(config.stages)} and its strategy'
      f' {config.strategy!r}: choose a run that trained all of'
      f' {", ".join(nets.ORDER)}.'
    )
  seen = seen_lib.read_if_there(pathlib.Path(folder))
  variables = workdir.load_variables(folder, trained)
  return bundle_files.Bundle(
    name=name,
    config=config,
    metrics=metrics,
    card=card.model_card(name, config, metrics, seen),
    members=(variables,),
    seen=seen,
  )


def _model(bundle: bundle_files.Bundle) -> model.Model | ensemble.Ensemble:
  """Returns the model or the ensemble of a bundle."""
  if len(bundle.members) == 1 and not bundle.symmetries:
    (variables,) = bundle.members
    return model.Model(
      name=bundle.name,
      config=bundle.config,
      metrics=bundle.metrics,
      card=bundle.card,
      variables=variables,
      temperature=bundle.temperature,
      seen=bundle.seen,
    )
  members = [
    model.Model(
      name=f'{bundle.name}/{i}',
      config=bundle.config,
      metrics=bundle.metrics,
      card=bundle.card,
      variables=variables,
      seen=bundle.seen,
    )
    for i, variables in enumerate(bundle.members)
  ]
  return ensemble.Ensemble(
    members,
    symmetries=bundle.symmetries,
    name=bundle.name,
    metrics=bundle.metrics,
    card=bundle.card,
    temperature=bundle.temperature,
  )
