"""Trains the runs of an ablation or comparison, and compares them.

    python -m mtnet_jax.sweep --config=configs/ablations.py:table4       paper
    python -m mtnet_jax.sweep --config=configs/ablations.py:table4,test  minutes

The config is FILE:NAME or FILE:NAME,VARIANT, where VARIANT is one of
configs/mtnet.py: demo and test run on phantoms. Sweeps of the paper's tables
and figures are in configs/ablations.py, whose first lines list them. Every
field of the runs is a flag, such as --config.base.coarse_stage.epochs=20

The sweep writes a run directory per point, as `python -m mtnet_jax.main` does,
and

    runs/NAME-VARIANT/report/index.html     a table and a figure
    runs/NAME-VARIANT/report/*.csv  *.png

It can be stopped at any time: the same command resumes it, and finished runs
stay as they are. Several devices train different points at the same time, and
so do several processes that run the same command.

--config.test_folds=0,1,2,3,4 trains each point once for each test fold, and
pools the test nodules of the folds.
"""

from absl import flags
from ml_collections import config_flags

from mtnet_jax.experiments import sweep_runs
from mtnet_jax.system import command_line
from mtnet_jax.system import config_command
from mtnet_jax.system import errors


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'File, sweep and variant: configs/ablations.py:table4,test.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'workdir',
    '',
    'Directory of the sweep; default: runs/NAME-VARIANT.',
    flag_values=values,
  )


def main(values: flags.FlagValues) -> None:
  """Runs the sweep that the flags describe."""
  command_line.prepare_training()
  # `config_flags` adds the attribute to flags of its own class.
  changed = set(values['config'].override_values)  # type: ignore[attr-defined]
  errors.exit_on_input_error(
    lambda: sweep_runs.run(values.config, values.workdir, changed=changed)
  )


if __name__ == '__main__':
  config_command.run(
    main,
    define_flags=define_flags,
    doc=__doc__,
    example='configs/ablations.py:table4,test',
  )
