"""Commands that replace a folder, and the state before they run."""

from collections.abc import Callable
import contextlib
import pathlib
import sys
from typing import NamedTuple

import ct_files
import made_run
import predict_job
import sweep_config

_POINTS = predict_job.POINTS.splitlines(keepends=True)


class Case(NamedTuple):
  """A command that replaces a folder.

  Attributes:
    target: pattern of the replaced folder, relative to the folder of a trial.
    prepare: function (shared folder, folder of a trial) that fills the latter,
      with an old target.
    run: function (folder of a trial) that runs the command there.
    old: whether there is an old target.
  """

  target: str
  prepare: Callable[[pathlib.Path, pathlib.Path], None]
  run: Callable[[pathlib.Path], None]
  old: bool = True


def _call(module, *arguments):
  sys.argv = [module.__name__, *map(str, arguments)]
  module.main()


def share(folder):
  """Makes input of several cases: a dataset, a run, a series and a sweep."""
  from mtnet_jax.data import lidc
  from mtnet_jax.data import nodules
  from mtnet_jax.evaluation import outputs as outputs_lib
  from mtnet_jax.evaluation import records
  from tfds_lidc import build
  from tfds_lidc.nodules import selection

  build.build('phantom', data_dir=folder / 'data')
  config = made_run.config_of()
  with config.unlocked():
    config.dataset.data_dir = str(folder / 'data')
    config.dataset.limit = 12
    splits = lidc.load_splits(config.dataset)
    config.dataset.fingerprint = nodules.fingerprint(splits)
  outputs = outputs_lib.predict(
    config, made_run.draw_variables(config), splits['test'], progress=iter
  )
  rows = records.make_records(splits['test'], outputs)
  made_run.write(folder / 'run', config, rows=rows)
  hu = ct_files.volume(*predict_job.BALLS.values())
  (folder / 'ct').mkdir()
  ct_files.write(folder / 'ct', hu)
  names = [
    n.nodule_id for n in selection.select(selection.POLICIES['paper'])[:40]
  ]
  (folder / 'list.csv').write_text('\n'.join(['nodule_id', *names, '']))
  _sweep(folder, folder / 'sweep')


def _build(folder):
  from tfds_lidc import build

  _call(
    build,
    '--config=phantom',
    '--overwrite',
    f'--data_dir={folder}',
    f'--policy=nodules={folder}/list.csv',
  )


def _report(folder):
  from mtnet_jax import report

  _call(report, f'--workdir={folder}')


def _bundle(folder):
  from mtnet_jax import bundle

  _call(bundle, f'--run={folder}/run', f'--out={folder}/out')


def _export(folder):
  from mtnet_jax import export

  _call(export, f'--checkpoint={folder}/run', f'--out={folder}/out')


def _predict(folder, points=predict_job.POINTS):
  from mtnet_jax.inference import bundles

  bundles.load = lambda path: ct_files.Model()
  predict_job.run(folder / 'ct', folder / 'out', points)


def _sweep(shared, folder):
  from mtnet_jax.experiments import sweep_runs

  sweep_runs.run(sweep_config.get_config(str(shared / 'data')), str(folder))


def _copy(*names):
  """Returns a function that copies some shared files to a trial's folder."""
  import shutil

  def prepare(shared, folder):
    for name in names:
      if (shared / name).is_dir():
        shutil.copytree(shared / name, folder / name)
      else:
        shutil.copy(shared / name, folder / name)

  return prepare


def _and_run(prepare, run):
  def prepared(shared, folder):
    with contextlib.suppress(FileExistsError):
      folder.mkdir()
    prepare(shared, folder)
    run(folder)

  return prepared


def cases(shared):
  """Returns name of the command -> `Case`."""

  def sweep(folder):
    _sweep(shared, folder / 'sweep')

  def report(folder):
    _report(folder / 'run')

  def predicted(shared, folder):
    _copy('ct')(shared, folder)
    _predict(folder, ''.join(_POINTS[:2]))

  return {
    'build': Case(
      'lidc_nodules/phantom-*/*', _and_run(_copy('list.csv'), _build), _build
    ),
    'bundle': Case('out', _copy('run'), _bundle, old=False),
    'export': Case('out', _copy('run'), _export, old=False),
    'report': Case('run/report', _and_run(_copy('run'), report), report),
    'predict': Case('out', predicted, _predict),
    'sweep': Case('sweep/report', _copy('sweep'), sweep),
  }
