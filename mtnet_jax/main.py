"""Trains and evaluates MT-Net.

    python -m mtnet_jax.main --config=configs/mtnet.py          the paper's size
    python -m mtnet_jax.main --config=configs/mtnet.py:demo     minutes, no GPU

Any field of the config can be given, such as --config.coarse_stage.epochs=20.
The same command again goes on where the last one stopped.

On several hosts, on each of them with its own --process_id:

    python -m mtnet_jax.main --config=... --workdir=... \\
        --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0
"""

from absl import app
from absl import flags
from ml_collections import config_flags

from mtnet_jax.system import command_line
from mtnet_jax.system import errors

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'File and variant, such as configs/mtnet.py:demo.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Run directory; default: runs/<variant>.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'Of a run on several hosts: HOST:PORT of process 0, any free port; or auto,'
  ' on Slurm, Open MPI and cloud TPUs.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many processes there are, one per host.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id',
  None,
  'Which one this is, from 0. Process 0 has the dataset and the run directory.',
)


def main(_):
  command_line.prepare_training(several_processes=bool(_COORDINATOR.value))
  # Heavy imports wait until the flags are known to be right.
  from mtnet_jax.experiments import run
  from mtnet_jax.system import processes

  def train():
    processes.connect(
      _COORDINATOR.value,
      num_processes=_NUM_PROCESSES.value,
      process_id=_PROCESS_ID.value,
    )
    with processes.together():
      run.run(_CONFIG.value, _WORKDIR.value)

  errors.exit_on_input_error(train)


if __name__ == '__main__':
  app.run(
    main,
    flags_parser=command_line.config_flags_parser(
      _CONFIG, example='configs/mtnet.py:demo'
    ),
  )
