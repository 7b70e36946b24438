"""The main job: three stages one after the other, evaluation, report."""

import pathlib

import jax

from mtnet_jax import errors
from mtnet_jax import evaluate
from mtnet_jax import files
from mtnet_jax import input_pipeline
from mtnet_jax import progress
from mtnet_jax import report
from mtnet_jax import scores
from mtnet_jax import stages
from mtnet_jax import tables
from mtnet_jax import train
from mtnet_jax import workdir as workdir_lib

_BANNER = '=' * 78


def choose_dataset(config):
  """The config with the dataset that this run uses, built if simulated.

  Raises:
    errors.InputError: it is not on this disk, and no fallback is allowed.
  """
  dataset = config.dataset
  name, data_dir = dataset.name, dataset.data_dir
  if not input_pipeline.is_simulated(name, data_dir) and (
    not input_pipeline.is_built(name, data_dir)
  ):
    command = input_pipeline.build_command(name, data_dir)
    if not dataset.fallback:
      raise errors.InputError(
        f'{name} was not built: build it with `{command}`, or set'
        ' --config.dataset.fallback=lidc_nodules/phantom.'
      )
    print(
      f'{_BANNER}\n{name} was not built. This run uses SIMULATED CT'
      f' ({dataset.fallback}) instead: its\nresults say nothing about real'
      f' nodules. To use real CT, first build it with\n\n    {command}\n'
      f'{_BANNER}'
    )
    name = dataset.fallback
  if input_pipeline.is_simulated(name, data_dir) and (
    not input_pipeline.is_built(name, data_dir)
  ):
    print(f'Building {name} (SIMULATED CT, once).')
    input_pipeline.build_phantoms(name, data_dir)
  chosen = config.copy_and_resolve_references()
  with chosen.unlocked():
    chosen.dataset.name = name
  return chosen


def run(config, workdir=''):
  """Trains and evaluates; goes on where an earlier call stopped.

  Args:
    config: of `configs/mtnet.py`.
    workdir: the run directory; '' for runs/<variant>.

  Raises:
    errors.InputError: something the user gave cannot be used.
  """
  workdir = pathlib.Path(workdir or pathlib.Path('runs', config.variant))
  config = choose_dataset(config)
  workdir_lib.claim(workdir, config)
  dataset = config.dataset
  if (workdir / 'metrics.json').exists():
    results = workdir_lib.read_metrics(workdir)
    print(f'{workdir} is finished; another --workdir starts a new run.\n')
    _show(results, workdir)
    return

  splits = {
    split: input_pipeline.load(
      dataset.name, split, data_dir=dataset.data_dir, limit=dataset.limit
    )
    for split in ('train', 'validation', 'test')
  }
  simulated = splits['train'].simulated
  print(
    f'{dataset.name}{" (SIMULATED CT)" if simulated else ""}: '
    + ', '.join(f'{len(data)} {split}' for split, data in splits.items())
    + f' nodules. {jax.device_count()} x {jax.devices()[0].device_kind}.'
    f' Run directory: {workdir}'
  )
  diameter_model = scores.fit_diameter_only(splits['train'])
  variables, histories = train_stages(
    config, splits, workdir=workdir, simulated=simulated
  )
  records, summary, outputs = evaluate.evaluate(
    config,
    variables,
    data=splits['test'],
    diameter_model=diameter_model,
    progress=tables.progress_bar('evaluating'),
  )
  results = {
    **workdir_lib.header(config, dataset=dataset.name, simulated=simulated),
    'diameter_only_model': diameter_model,
    'test': summary,
  }
  files.write_csv(workdir / 'records.csv', records)
  report.write(
    workdir / 'report',
    results=results,
    records=records,
    histories=histories,
    nodules=splits['test'],
    outputs=outputs,
  )
  # Last, for it is what says that a run is finished.
  files.write_json(workdir / 'metrics.json', results)
  _show(results, workdir)


def train_stages(config, splits, *, workdir, simulated):
  """Trains coarse, class and fine, each from its last checkpoint.

  Returns:
    stage name -> best variables, and stage name -> history.
  """
  observer = progress.Observer(
    workdir, simulated=simulated, log_every=config.log_every
  )
  nets = stages.make_nets(config)
  variables, histories = {}, {}
  for stage in stages.make_stages(config):
    trainer = train.Trainer(
      stage,
      config,
      nets=nets,
      coarse_variables=variables.get('coarse'),
      train=splits['train'],
      validation=splits['validation'],
      directory=workdir_lib.checkpoint_dir(workdir, stage.name),
    )
    variables[stage.name], histories[stage.name] = trainer.run(observer)
  return variables, histories


def _show(results, workdir):
  print()
  print(
    tables.beside_the_paper(results['test'], simulated=results['simulated'])
  )
  print(f'\nReport: {workdir}/report/index.html')
