"""The main job: the stages one after the other, evaluation, report.

Of several processes all train and evaluate; the first alone reads the dataset,
writes the run directory and prints.
"""

import contextlib
import json
import pathlib

import jax

from mtnet_jax import check_config
from mtnet_jax import errors
from mtnet_jax import evaluate
from mtnet_jax import examples
from mtnet_jax import files
from mtnet_jax import initial_weights
from mtnet_jax import input_pipeline
from mtnet_jax import parallel
from mtnet_jax import processes
from mtnet_jax import progress
from mtnet_jax import report_page
from mtnet_jax import run_lock
from mtnet_jax import scores
from mtnet_jax import stages
from mtnet_jax import tables
from mtnet_jax import train
from mtnet_jax import workdir as workdir_lib

_BANNER = '=' * 78


def choose_dataset(config, *, say=print):
  """The config with the dataset that this run uses.

  Args:
    config: of `configs/mtnet.py`.
    say: prints.

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
    say(
      f'{_BANNER}\n{name} was not built. This run uses SIMULATED CT instead'
      f'\n({dataset.fallback}): its results say nothing about real nodules.\n'
      f'To use real CT, first build it with\n\n    {command}\n{_BANNER}'
    )
    name = dataset.fallback
  chosen = config.copy_and_resolve_references()
  with chosen.unlocked():
    chosen.dataset.name = name
  return chosen


def load_splits(config, *, say=print):
  """The three splits of the config's dataset, built first if simulated.

  Args:
    config: of `choose_dataset`.
    say: prints.

  Raises:
    errors.InputError: a split is missing, or has one class only.
  """
  dataset = config.dataset
  name, data_dir = dataset.name, dataset.data_dir
  if input_pipeline.is_simulated(name, data_dir) and (
    not input_pipeline.is_built(name, data_dir)
  ):
    say(f'Building {name} (SIMULATED CT, once).')
    input_pipeline.build_phantoms(name, data_dir)
  present = input_pipeline.splits(name, data_dir)
  missing = [split for split in input_pipeline.SPLITS if split not in present]
  if missing:
    raise errors.InputError(
      f'{name} as built has no {" and no ".join(missing)} split: the CT on this'
      ' disk is of too few patients. Get more and build again with'
      f' `{input_pipeline.build_command(name, data_dir)} --overwrite`, or take'
      ' --config.dataset.name=lidc_nodules/phantom.'
    )
  splits = input_pipeline.load_splits(dataset)
  for split in ('train', 'validation'):
    if set(splits[split].labelled().label) != {0, 1}:
      raise errors.InputError(
        f'the {split} split of {name} ({len(splits[split])} nodules) lacks'
        ' benign or malignant ones, so that nothing can be learned or chosen:'
        ' build more of it, or raise config.dataset.limit.'
      )
  return splits


def run(config, workdir='', *, observer=None, say=print):
  """Trains and evaluates; goes on where an earlier call stopped.

  Args:
    config: of `configs/mtnet.py`, the same in every process.
    workdir: the run directory, the first process's; '' for runs/<variant>.
    observer: makes, of (workdir, simulated=..., log_every=...), what is told
      of the progress; `progress.Observer` by default.
    say: prints what there is to tell.

  Raises:
    errors.InputError: something the user gave cannot be used.
  """
  check_same_config(config)
  check_config.check_config(config)
  workdir = pathlib.Path(workdir or pathlib.Path('runs', config.variant))
  with contextlib.ExitStack() as locks:
    config, splits = processes.on_first(
      lambda: _prepare(config, workdir, say, locks)
    )
    if splits is not None:
      _run(config, workdir, splits, observer, say)


def _run(config, workdir, splits, observer, say):
  variables, histories = train_stages(
    config,
    splits,
    workdir=workdir,
    observer=(observer or progress.Observer)(
      workdir,
      simulated=splits['train'].simulated,
      log_every=config.log_every,
    )
    if processes.is_first()
    else progress.Silent(),
  )
  outputs = evaluate.predict(
    config,
    variables,
    splits['test'],
    progress=tables.progress_bar('evaluating')
    if processes.is_first() and observer is None
    else iter,
  )
  processes.on_first(
    lambda: _finish(config, workdir, splits, histories, outputs, say)
  )


def check_same_config(config):
  """Raises `errors.InputError` if the processes were given several configs."""
  first, *others = map(json.loads, processes.gather(config.to_json()))
  for process, other in enumerate(others, 1):
    differences = list(workdir_lib.differences(first, other))
    if differences:
      raise errors.InputError(
        f'process {process} was given another config than process 0:'
        f' {"; ".join(differences)}. Give every process the same command but'
        ' for --process_id.'
      )


def _prepare(config, workdir, say, locks):
  """The config as it is run, and its splits; None where the run is finished."""
  config = choose_dataset(config, say=say)
  config = initial_weights.settle(config, workdir)
  workdir_lib.make_folder(workdir)
  locks.enter_context(run_lock.held(workdir))
  splits = load_splits(config, say=say)
  with config.unlocked():
    config.dataset.fingerprint = input_pipeline.fingerprint(splits)
    config.dataset.spacing_mm = splits['train'].spacing_mm or 0.0
  workdir_lib.claim(workdir, config)
  if (workdir / 'metrics.json').exists():
    results = workdir_lib.read_metrics(workdir)
    say(f'{workdir} is finished; another --workdir starts a new run.\n')
    _show(results, workdir, say)
    return config, None
  files.remove_leftovers(workdir)
  simulated = splits['train'].simulated
  say(
    f'{config.dataset.name}{" (SIMULATED CT)" if simulated else ""}: '
    + ', '.join(f'{len(data)} {split}' for split, data in splits.items())
    + f' nodules. {_devices()}. Run directory: {workdir}'
  )
  return config, splits


def _devices():
  text = f'{parallel.device_count()} x {jax.devices()[0].device_kind}'
  if jax.process_count() > 1:
    text += f' in {jax.process_count()} processes'
  return text


def _finish(config, workdir, splits, histories, outputs, say):
  """From predictions to the files of a finished run."""
  simulated = splits['train'].simulated
  diameter_model = scores.fit_diameter_only(splits['train'])
  records, summary = evaluate.score(
    config, splits['test'], outputs, diameter_model=diameter_model
  )
  results = {
    **workdir_lib.header(
      config, dataset=config.dataset.name, simulated=simulated
    ),
    'cohort': {
      name: input_pipeline.count(data) for name, data in splits.items()
    },
    'diameter_only_model': diameter_model,
    'test': summary,
  }
  files.write_csv(workdir / 'records.csv', records)
  report_page.write(
    workdir / 'report',
    results=results,
    records=records,
    histories=histories,
    examples=examples.pick(records, splits['test'], outputs),
  )
  # Last, for it is what says that a run is finished.
  files.write_json(workdir / 'metrics.json', results)
  _show(results, workdir, say)


def train_stages(config, splits, *, workdir, observer):
  """Trains the stages of a config, each from its last checkpoint.

  Returns:
    stage name -> best variables, and stage name -> history.
  """
  nets = stages.make_nets(config)
  variables, histories = {}, {}
  for stage in stages.make_stages(config):
    trainer = train.Trainer(
      stage,
      config,
      nets=nets,
      trained=variables,
      train=splits['train'],
      validation=splits['validation'],
      directory=workdir_lib.checkpoint_dir(workdir, stage.name),
      load_weights=initial_weights.loader(config, stage),
    )
    variables[stage.name], histories[stage.name] = trainer.run(observer)
  return variables, histories


def _show(results, workdir, say):
  say()
  say(
    tables.beside_the_paper(
      results['test'],
      simulated=results['simulated'],
      strategy=results['strategy'],
    )
  )
  say(f'\nReport: {workdir}/report/index.html')
