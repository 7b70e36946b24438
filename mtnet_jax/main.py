r"""Trains and evaluates MT-Net.

    python -m mtnet_jax.main --config=configs/mtnet.py          the paper's size
    python -m mtnet_jax.main --config=configs/mtnet.py:demo     minutes, no GPU

Any field of the config is a flag, such as --config.coarse_stage.epochs=20. If
the training was stopped, the same command resumes it.

To train on several hosts, run this on each of them with its own --process_id:

    python -m mtnet_jax.main --config=... --workdir=... \
        --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0
"""

from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from mtnet_jax.system import command_line
from mtnet_jax.system import config_command
from mtnet_jax.system import errors


def define_flags(values: flags.FlagValues) -> None:
  """Defines the command's flags."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'File and variant, such as configs/mtnet.py:demo.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'workdir',
    '',
    'Run directory (default: runs/<variant>).',
    flag_values=values,
  )
  flags.DEFINE_string(
    'coordinator',
    '',
    'For a run on several hosts: HOST:PORT of process 0, with any free port; on'
    ' Slurm, Open MPI and cloud TPUs, auto.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_processes',
    None,
    'Number of processes, one per host.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'process_id',
    None,
    'Index of this process, from 0. Process 0 needs the dataset and has the run'
    ' directory.',
    flag_values=values,
  )


def main(values: flags.FlagValues) -> NoReturn:
  """Trains and evaluates with parsed flags, and exits."""
  command_line.prepare_training(several_processes=bool(values.coordinator))
  # These imports take seconds. Wrong flags are reported before.
  from mtnet_jax.experiments import run
  from mtnet_jax.system import processes

  def train():
    processes.connect(
      values.coordinator,
      num_processes=values.num_processes,
      process_id=values.process_id,
    )
    with processes.together():
      run.run(
        values.config,
        values.workdir,
        changed=set(values['config'].override_values),
      )

  errors.exit_on_input_error(train)


if __name__ == '__main__':
  config_command.run(
    main,
    define_flags=define_flags,
    doc=__doc__,
    example='configs/mtnet.py:demo',
  )
