"""What several tests share: a phantom dataset, compiled programs, a run."""

import atexit
import os
import shutil
import tempfile

import main_job
import pytest

# Loading a model keeps compiled programs on disk: those of tests not among the
# user's own. Read when JAX is imported, so before any test module is.
_COMPILED = tempfile.mkdtemp(prefix='mtnet_jax-tests-')
atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED
# Read when Keras is first imported, which TensorFlow may do, for whichever test
# is collected first.
os.environ['KERAS_BACKEND'] = 'jax'


@pytest.fixture(scope='session')
def phantom_data_dir(tmp_path_factory):
  """A TFDS folder that holds the whole phantom dataset."""
  from tfds_lidc import build

  data_dir = tmp_path_factory.mktemp('tensorflow_datasets')
  build.build('phantom', data_dir=data_dir)
  return data_dir


@pytest.fixture(scope='session')
def compiled(tmp_path_factory):
  """Environment in which child processes share what they compiled."""
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    # Workers have folders in that of the session. Whoever reads a program that
    # another is just writing compiles it again.
    folder = folder.parent
  return {
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1',
  }


@pytest.fixture(scope='session')
def made_run_dir(tmp_path_factory):
  """Run directory of tiny networks with random variables; not to change."""
  import made_run

  return made_run.write(tmp_path_factory.mktemp('made') / 'made')


@pytest.fixture(scope='session')
def made_model(made_run_dir):
  """The model of `made_run_dir`."""
  import mtnet_jax

  return mtnet_jax.load(made_run_dir)


@pytest.fixture(scope='session')
def finished_run(tmp_path_factory, phantom_data_dir, compiled):
  """Run directory of an undisturbed run of the test size, and its output."""
  workdir = tmp_path_factory.mktemp('runs') / 'undisturbed'
  done = main_job.run(
    main_job.test_size_job(workdir, phantom_data_dir), **compiled
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, done.stdout
