"""Restores a trained model."""

import re

from mtnet_jax import compilation_cache
from mtnet_jax import errors
from mtnet_jax import model as model_lib
from mtnet_jax import remote
from mtnet_jax import workdir

# What a model needs of a run directory: not what training needs to go on.
_WANTED = re.compile(r'config\.json|metrics\.json|checkpoints/[^/]+/best/.*')


def load(path):
  """Restores a trained model, on this process's first device.

  Compiled programs are kept on this disk, see `compilation_cache`.

  Args:
    path: a run directory; or a URL of one, such as gs://bucket/run.

  Returns:
    A `model.Model`.

  Raises:
    errors.InputError: nothing that can be used is there.
  """
  compilation_cache.enable()
  with remote.local_folder(path, wanted=_WANTED.fullmatch) as folder:
    try:
      return _from_run(folder, name=str(path).rstrip('/').rpartition('/')[2])
    except errors.InputError as error:
      # What was downloaded is known to the user by its address.
      raise errors.InputError(
        str(error).replace(str(folder), str(path))
      ) from error


def _from_run(folder, *, name):
  return model_lib.Model(
    name=name,
    config=workdir.read_config(folder),
    metrics=workdir.read_metrics(folder),
    card='',
    variables=workdir.load_variables(folder),
  )
