"""Trained models loaded: a run, a bundle, or one that comes with the package.

`mtnet_jax.bundle` says what a bundle is, and `packing` writes one.
"""

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

# The files that are downloaded from elsewhere. Of a run these are the ones that
# a model needs, and the histories that say which of its epochs is the best; not
# the states that training needs.
WANTED = re.compile(
  '|'.join(
    map(re.escape, (*bundle_files.FILES, bundle_files.MANIFEST, seen_lib.FILE))
  )
  + r'|checkpoints/[^/]+/best/.*'
  + r'|checkpoints/[^/]+/latest/(\.replaced/)?[^/]+/meta/metadata'
)


def load(path):
  """Restores a trained model, on this process's first device.

  Compiled programs are kept on this disk, see `compilation_cache`.

  Args:
    path: a run directory or a bundle; a URL of one, such as gs://bucket/run or
      hf://owner/name (with @revision, /folder or both behind it); or the name
      of a model that comes with the package, such as 'lidc-small'. A list of
      them makes an ensemble.

  Returns:
    A `model.Model`; of a list, or of a bundle with several members or with
    symmetries, an `ensemble.Ensemble`.

  Raises:
    errors.InputError: there is no run or bundle, or it cannot be used; or none
      of the devices that JAX_PLATFORMS names.
  """
  compilation_cache.enable()
  with errors.of_devices():
    jax.devices()
  if isinstance(path, (list, tuple)):
    return ensemble.Ensemble([load(one) for one in path])
  with remote.local_folder(path, wanted=WANTED.fullmatch) as folder:
    try:
      with bundle_files.damage(folder):
        return _model(read(folder, name=name_of(path)))
    except errors.InputError as error:
      # The user knows a download by its address.
      raise errors.InputError(
        str(error).replace(str(folder), str(path))
      ) from error


def name_of(path):
  """A name made of the last part of a path or a URL."""
  path = str(path)
  if '://' in path:
    return texts.as_name(remote.last_part(path))
  return texts.as_name(pathlib.Path(path).resolve().name)


def read(folder, *, name):
  """A `bundle_files.Bundle` of a bundle or a run directory.

  Args:
    folder: where it is, on this disk.
    name: of the model, if it is a run.

  Raises:
    errors.InputError: it cannot be used.
  """
  if bundle_files.is_bundle(folder):
    return bundle_files.read(folder, check_variables=nets.check_variables)
  return _of_run(folder, name)


def _of_run(folder, name):
  config, metrics = workdir.read_config(folder), workdir.read_metrics(folder)
  trained = nets.names(config)
  missing = [stage for stage in nets.ORDER if stage not in trained]
  if missing:
    raise errors.InputError(
      f'{folder} has no {" and no ".join(missing)} network, as its'
      f' config.stages is {", ".join(config.stages)} and its strategy'
      f' {config.strategy!r}: a model has all of {", ".join(nets.ORDER)}.'
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


def _model(bundle):
  """The model, or the ensemble, of a bundle."""
  whole = {
    'name': bundle.name,
    'metrics': bundle.metrics,
    'card': bundle.card,
    'temperature': bundle.temperature,
  }
  if len(bundle.members) == 1 and not bundle.symmetries:
    (variables,) = bundle.members
    return model.Model(
      **whole, config=bundle.config, variables=variables, seen=bundle.seen
    )
  members = [
    model.Model(
      name=f'{bundle.name}/{number}',
      config=bundle.config,
      metrics=bundle.metrics,
      card=bundle.card,
      variables=variables,
      seen=bundle.seen,
    )
    for number, variables in enumerate(bundle.members)
  ]
  return ensemble.Ensemble(members, symmetries=bundle.symmetries, **whole)
