"""Fixtures of several tests: a phantom dataset, compiled programs and a run."""

import atexit
import os
import shutil
import tempfile

import filelock
import main_job
import pytest

# Loading a model writes compiled programs to disk; those of the tests must not
# mix with the user's. JAX reads the variables when it is imported, so they are
# set before any test module is imported. Workers of pytest-xdist inherit the
# folder. MTNET_JAX_TESTS_COMPILED names a folder that several runs of the tests
# share.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _COMPILED = os.environ.get('MTNET_JAX_TESTS_COMPILED')
  if not _COMPILED:
    _COMPILED = tempfile.mkdtemp(prefix='mtnet_jax-tests-')
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
# Tests mostly wait for compilers, so programs are compiled without the
# optimizations that need most of that time. In the environment, a value of 0
# gives the programs that users have.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
# Keras reads this when it is first imported, which TensorFlow may do in any
# test module.
os.environ['KERAS_BACKEND'] = 'jax'

# The files that take longest run first, so that all workers end at about the
# same time. pytest-xdist by itself starts with the files that have the most
# tests, and ends with a single worker that trains.
_LONGEST = (
  'experiments/test_bfloat16_run.py',
  'experiments/test_determinism.py',
  'commands/test_sweep.py',
  'training/test_trainer.py',
  'training/test_step.py',
  'models/test_parity_torch.py',
  'models/test_parity_timm.py',
  'models/test_strategies.py',
  'benchmarks/test_on_gpu_check.py',
  'experiments/test_kills.py',
  'experiments/test_run.py',
  'ops/test_folded.py',
  'ops/test_native.py',
  'ops/test_conv_parity.py',
  'benchmarks/test_on_gpu_train.py',
)


def pytest_configure(config):
  config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
  rank = {config.rootpath / 'tests' / x: i for i, x in enumerate(_LONGEST)}
  items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope='session')
def make_once(tmp_path_factory):
  """Function (name, make) -> folder, made by the first worker that asks for it.

  `make` fills an empty folder; other workers wait. If it fails, the next worker
  that asks tries again.
  """
  parent = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    # The folder of each worker is inside the session's.
    parent = parent.parent
  parent /= 'made_once'
  parent.mkdir(exist_ok=True)

  def folder_of(name, make):
    folder, made = parent / name, parent / f'{name}.made'
    with filelock.FileLock(parent / f'{name}.lock'):
      if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        made.touch()
    return folder

  return folder_of


@pytest.fixture(scope='session')
def phantom_data_dir(make_once):
  """TFDS data directory with all phantoms; tests must not change it."""

  def make(folder):
    from tfds_lidc import build

    build.build('phantom', data_dir=folder)

  return make_once('tensorflow_datasets', make)


@pytest.fixture(scope='session')
def compiled():
  """Environment variables with which processes share compiled programs."""
  # A process compiles a program again if another one is just writing it.
  return {
    name: os.environ[name]
    for name in (
      'JAX_COMPILATION_CACHE_DIR',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
    )
  }


@pytest.fixture(scope='session')
def made_run_dir(tmp_path_factory):
  """Run directory of tiny random networks; tests must not change it."""
  import made_run

  return made_run.write(tmp_path_factory.mktemp('made') / 'made')


@pytest.fixture(scope='session')
def made_model(made_run_dir):
  """The model of `made_run_dir`."""
  import mtnet_jax

  return mtnet_jax.load(made_run_dir)


@pytest.fixture(scope='session')
def finished_run(make_once, phantom_data_dir, compiled):
  """(run directory, standard output) of an uninterrupted `small_job`."""

  def make(folder):
    done = main_job.run(
      main_job.small_job(folder / 'run', phantom_data_dir), **compiled
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / 'stdout').write_text(done.stdout)

  folder = make_once('undisturbed', make)
  return folder / 'run', (folder / 'stdout').read_text()
