"""Runs the main job: the stages one after the other, evaluation, report.

With several processes, all train and evaluate, but only the first one reads the
dataset, writes the run directory and prints.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import contextlib
import json
import os
import pathlib
from typing import Any

import jax
import ml_collections

from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.ops.native import library
from mtnet_jax.reports import commands
from mtnet_jax.reports import examples
from mtnet_jax.reports import page
from mtnet_jax.reports import text as text_lib
from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import command_line
from mtnet_jax.system import devices
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.system import processes
from mtnet_jax.training import check_config
from mtnet_jax.training import from_public
from mtnet_jax.training import from_run
from mtnet_jax.training import keep_seen
from mtnet_jax.training import progress
from mtnet_jax.training import stages
from mtnet_jax.training import trainer as trainer_lib


def run(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str] = '',
  *,
  observer: Callable[..., progress.Observer] | None = None,
  say: Callable[..., object] = print,
  changed: Collection[str] | None = None,
  before_training: Callable[[pathlib.Path], object] | None = None,
) -> None:
  """Trains and evaluates; resumes a run that was stopped.

  Args:
    config: of `configs/mtnet.py`, the same in every process.
    workdir: the run directory of the first process; '' for runs/<variant>. The
      other processes ignore it.
    observer: called with (workdir, simulated=..., log_every=...), returns an
      observer of the progress; `progress.Observer` by default.
    say: prints a line.
    changed: keys of the config whose values differ from its file, see
      `configs.differences`.
    before_training: called with the run directory before training starts, while
      this process holds its lock; not called for a finished run.

  Raises:
    errors.InputError: a value of the config or the dataset cannot be used, or
      the run directory belongs to another run, or was moved meanwhile.
  """
  check_same_config(config)
  check_config.check_config(config)
  workdir = pathlib.Path(paths.expand(workdir) or f'runs/{config.variant}')
  identity = None  # Only set in the first process, which writes files.

  def prepare():
    nonlocal identity
    *prepared, identity = _prepare(
      config, workdir, say, locks, changed, before_training
    )
    return prepared

  with contextlib.ExitStack() as locks:
    config, splits = processes.on_first(prepare)
    if splits is not None:
      _run(config, workdir, splits, observer, say, identity)


def _run(config, workdir, splits, observer, say, identity):
  variables, histories = train_stages(
    config,
    splits,
    workdir=workdir,
    say=say,
    identity=identity,
    observer=(observer or progress.Observer)(
      workdir,
      simulated=splits['train'].simulated,
      log_every=config.log_every,
    )
    if processes.is_first()
    else progress.Silent(),
  )
  outputs = outputs_lib.predict(
    config,
    variables,
    splits['test'],
    progress=command_line.progress_bar('evaluating')
    if processes.is_first() and observer is None
    else iter,
  )
  processes.on_first(
    lambda: _finish(config, workdir, splits, histories, outputs, say, identity)
  )


def check_same_config(config: ml_collections.ConfigDict) -> None:
  """Checks that all processes have the same config.

  Raises:
    errors.InputError: they have different configs.
  """
  first, *others = map(json.loads, processes.gather(config.to_json()))
  for process, other in enumerate(others, 1):
    differences = list(configs.differences(first, other))
    if differences:
      raise errors.InputError(
        f'process {process} has another config than process 0:'
        f' {"; ".join(differences)}. Start every process with the same command'
        ' except for --process_id.'
      )


def _prepare(config, workdir, say, locks, changed, before_training):
  """Claims the run directory, and loads the dataset.

  Returns:
    The config with all fields filled in, the splits, and the identity of the
    run directory. The last two are None if the run is finished.
  """
  config = choice.choose_dataset(config, say=say)
  config = from_public.fill_in(config, workdir)
  config = from_run.fill_in(config, workdir)
  files.make_folder(workdir)
  place = identity_lib.Place(workdir)
  locks.enter_context(workdir_lib.lock(workdir))
  # Building phantoms takes only one core, so compilers can use the others.
  library.build_ahead()
  splits = lidc.load_for_training(config, say=say)
  with config.unlocked():
    # Once the dataset is built, the files that define it are not needed.
    config.dataset.name = lidc.lasting_name(config.dataset.name)
    config.dataset.fingerprint = nodules.fingerprint(splits)
    config.dataset.spacing_mm = splits['train'].spacing_mm or 0.0
  seen = keep_seen.gather(config, workdir, splits, say=say)
  # Loading may have taken long. If the directory was moved meanwhile, `claim`
  # would make a new one.
  place.check()
  workdir_lib.claim(workdir, config, changed=changed)
  identity = identity_lib.Identity(workdir, say=say, place=place)
  keep_seen.write(workdir, seen)
  files.remove_leftovers(workdir)
  if (workdir / 'metrics.json').exists():
    results = workdir_lib.read_metrics(workdir)
    workdir_lib.check_results(results, config, workdir)
    say(f'{workdir} is finished; another --workdir starts a new run.\n')
    _show(results, workdir, say)
    return config, None, None
  if before_training is not None:
    identity.check()
    before_training(workdir)
  simulated = splits['train'].simulated
  say(
    f'{config.dataset.name}{" (SIMULATED CT)" if simulated else ""}: '
    + ', '.join(f'{len(data)} {split}' for split, data in splits.items())
    + f' nodules. {_devices()}. Run directory: {workdir}'
  )
  return config, splits, identity


def _devices():
  text = f'{devices.device_count()} x {jax.devices()[0].device_kind}'
  if jax.process_count() > 1:
    text += f' in {jax.process_count()} processes'
  return text


def _finish(config, workdir, splits, histories, outputs, say, identity):
  """Writes the records, the report and the metrics, and prints the results."""
  simulated = splits['train'].simulated
  diameter_model = scores.fit_diameter_only(splits['train'])
  records, summary = scores.score(
    config, splits['test'], outputs, diameter_model=diameter_model
  )
  results = {
    **workdir_lib.header(
      config, dataset=config.dataset.name, simulated=simulated
    ),
    'cohort': {name: nodules.count(data) for name, data in splits.items()},
    'diameter_only_model': diameter_model,
    'test': summary,
  }
  if identity.earlier_versions:
    results['earlier_versions'] = identity.earlier_versions
  identity.check()
  files.write_csv(workdir / 'records.csv', records)
  page.write(
    workdir / 'report',
    results=results,
    records=records,
    histories=histories,
    examples=examples.pick(records, splits['test'], outputs),
    commands=commands.for_run(config, workdir),
  )
  identity.check()
  # metrics.json marks the run as finished, so it is written last.
  files.write_json(workdir / 'metrics.json', results)
  _show(results, workdir, say)


def train_stages(
  config: ml_collections.ConfigDict,
  splits: Mapping[str, nodules.Nodules],
  *,
  workdir: pathlib.Path,
  observer: progress.Observer | progress.Silent,
  identity: identity_lib.Identity | None,
  say: Callable[..., object] = print,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
  """Trains the stages of a config; resumes each from its last checkpoint.

  Args:
    config: of `configs/mtnet.py`.
    splits: split name -> nodules.
    workdir: the run directory of the first process.
    observer: of the progress.
    identity: of the run directory; None except in the first process.
    say: prints a line.

  Returns:
    Stage name -> best variables, and stage name -> a row per epoch.
  """

  def check_identity():
    assert identity is not None  # `on_first` calls this in no other process.
    identity.check()

  nets = nets_lib.make_nets(config)
  variables: dict[str, Any] = {}
  histories: dict[str, list[dict[str, Any]]] = {}
  for stage in stages.make_stages(config):
    processes.on_first(check_identity)
    trainer = trainer_lib.Trainer(
      stage,
      config,
      nets=nets,
      trained=variables,
      train=splits['train'],
      validation=splits['validation'],
      directory=workdir_lib.checkpoint_dir(workdir, stage.name),
      load_weights=from_run.loader(config, stage, say=say)
      or from_public.loader(config, stage),
      identity=identity,
    )
    variables[stage.name], histories[stage.name] = trainer.run(observer)
  return variables, histories


def _show(results, workdir, say):
  say()
  say(
    text_lib.beside_the_paper(
      results['test'],
      simulated=results['simulated'],
      strategy=results['strategy'],
    )
  )
  say(f'\nReport: {workdir}/report/index.html')
