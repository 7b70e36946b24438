"""Modules and models load without packages that they do not need yet."""

import subprocess
import sys

import main_job
import pytest

_DATASET = (
  'tfds_lidc',
  'tensorflow_datasets',
  'tensorflow',
  'pylidc',
  'pydicom',
)


@pytest.mark.parametrize(
  ('modules', 'unwanted'),
  [
    (('mtnet_jax.models.predictor', 'mtnet_jax.data.lidc'), _DATASET),
    # These imports take seconds. Some users never need them, and an error of
    # the command line must not wait for them.
    (('mtnet_jax',), ('jax',)),
    (('mtnet_jax.predict',), (*_DATASET, 'jax', 'sklearn', 'highdicom')),
    (
      ('mtnet_jax.experiments.run', 'mtnet_jax.experiments.sweep_runs'),
      (*_DATASET, 'sklearn', 'scipy.stats', 'pandas'),
    ),
    (('mtnet_jax.bundle',), (*_DATASET, 'orbax', 'sklearn', 'matplotlib')),
    (
      ('mtnet_jax.inference.bundles',),
      (*_DATASET, 'orbax', 'sklearn', 'matplotlib'),
    ),
  ],
)
def test_modules_load_without_packages_needed_later(modules, unwanted):
  code = (
    f'import sys, {", ".join(modules)}\n'
    f'print(*{set(unwanted)} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=main_job.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert not done.stdout.strip()


def test_model_loads_without_packages_of_training_and_reports(made_run_dir):
  """The model is a bundle, whose weights do not need Orbax."""
  code = (
    'import sys, tempfile, pathlib, mtnet_jax, mtnet_jax.bundle\n'
    'out = pathlib.Path(tempfile.mkdtemp(), "bundle")\n'
    'if sys.argv[1] == "write":\n'
    '  from mtnet_jax.inference import packing\n'
    '  packing.write(sys.argv[2], sys.argv[3])\n'
    'else:\n'
    '  mtnet_jax.load(sys.argv[3])\n'
    '  unwanted = {"orbax", "matplotlib", "sklearn", "tensorflow_datasets",'
    ' "pylidc", "tfds_lidc", "pydicom"}\n'
    '  print(*unwanted & set(sys.modules))'
  )
  out = made_run_dir.parent / 'bundle_of_dependencies'
  for what in ('write', 'load'):
    done = subprocess.run(
      [sys.executable, '-c', code, what, str(made_run_dir), str(out)],
      cwd=main_job.ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
  assert not done.stdout.strip()
