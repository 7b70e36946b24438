"""Trains and evaluates MT-Net.

    python -m mtnet_jax.main --config=configs/mtnet.py          the paper's size
    python -m mtnet_jax.main --config=configs/mtnet.py:demo     minutes, no GPU

Any field of the config can be given, such as --config.coarse_stage.epochs=20.
The same command again goes on where the last one stopped.

On several hosts, on each of them with its own --process_id:

    python -m mtnet_jax.main --config=... --workdir=... \\
        --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0
"""

from absl import flags
from ml_collections import config_flags

from mtnet_jax.system import command_line
from mtnet_jax.system import config_command
from mtnet_jax.system import errors


def define_flags(values):
  """Defines the command's flags in a `flags.FlagValues`."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'File and variant, such as configs/mtnet.py:demo.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'workdir',
    '',
    'Run directory; default: runs/<variant>.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'coordinator',
    '',
    'Of a run on several hosts: HOST:PORT of process 0, any free port; or auto,'
    ' on Slurm, Open MPI and cloud TPUs.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'num_processes',
    None,
    'How many processes there are, one per host.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'process_id',
    None,
    'Which one this is, from 0. Process 0 has the dataset and the run'
    ' directory.',
    flag_values=values,
  )


def main(values):
  command_line.prepare_training(several_processes=bool(values.coordinator))
  # Heavy imports wait until the flags are known to be right.
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
