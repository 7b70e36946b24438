"""Mistakes of users end in one clear line, not in a traceback."""

import re
import subprocess
import sys

import main_job
import project_configs
import pytest

from mtnet_jax import evaluate
from mtnet_jax.system import errors
from mtnet_jax.training import check_config


def run_module(name, *arguments, **env):
  return main_job.run(main_job.module(name, *arguments), **env)


def assert_refused(done, *words):
  """Checks for exit code 2 and one line on stderr that has all words."""
  assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
  lines = [
    line
    for line in done.stderr.strip().splitlines()
    # The first test on a machine prints this once.
    if 'building C++ loops' not in line
  ]
  assert len(lines) == 1, done.stderr[-2000:]
  for word in words:
    assert str(word) in lines[0], lines[0]


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ([], ['--config is missing']),
    (['--config=configs/mtnet.py:huge'], ["'huge'", 'demo']),
    (['--config=configs/none.py'], ['configs/none.py']),
    (
      ['--config=configs/mtnet.py:test', '--config.sed=1'],
      ['sed', 'seed'],
    ),
    (
      ['--config=configs/mtnet.py:test', '--config.seed=one'],
      ['seed', 'one'],
    ),
    (
      ['--config=configs/mtnet.py:test', '--confg.seed=1'],
      ['confg.seed'],
    ),
    (
      [
        '--config=configs/mtnet.py:test',
        '--config.dataset.name=lidc_nodules/papers',
      ],
      ['lidc_nodules/papers', 'phantom'],
    ),
    (
      ['--config=configs/mtnet.py', '--config.dataset.fallback='],
      ['tfds_lidc.build --config=paper'],
    ),
  ],
)
def test_main_refuses(flags, words, tmp_path):
  if any('fallback' in flag for flag in flags):
    flags = [*flags, f'--config.dataset.data_dir={tmp_path}/empty']
  done = run_module('mtnet_jax.main', f'--workdir={tmp_path}/run', *flags)
  assert_refused(done, *words)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('seed', -1),
    ('dataset.limit', -1),
    ('coarse_stage.batch_size', 0),
    ('class_stage.epochs', 0),
    ('views_per_image', 0),
    ('eval_batch_size', 0),
    ('log_every', 0),
    ('steps_per_call', -1),
    ('steps_per_call', 1001),
    ('dtype', 'float99'),
    ('matmul_precision', 'exact'),
    ('image_size', 0),
    ('window', (400.0, -1000.0)),
    ('coarse_mask', 'hrad'),
    ('fine_stage.schedule', 'linear'),
    ('augment.crop_min', 0.0),
    ('rank_loss.top_k', 0),
    # Smaller than top_k, which is 20.
    ('rank_loss.max_top_k', 19),
    ('stages', ('class', 'fine')),
    ('stages', ('coarse', 'final')),
    ('dataset.rotate_folds', -1),
    ('seg_net.exit_width', 10**9),
    ('views_per_image', None),
    ('augment.crop_max', None),
    ('dtype', '9' * 5000),
    ('dataset.data_dir', '9' * 5000),
    ('window', (None, 400.0)),
    ('window', ('-1000', '400')),
    ('window', (-1000.0, float('inf'))),
    ('class_weight', float('inf')),
    ('coarse_stage.learning_rate', float('nan')),
    ('class_stage.learning_rate', -1e-4),
    ('seg_net.tail_widths', (8, 8, -8)),
    ('seg_net.dropout_rates', (0.5, 0.5, 1.0)),
    ('seg_net.entry_widths', (8, 8, 1 << 31)),
    ('class_net.exit_width', 0),
    ('augment.flip_probability', 1.5),
    ('augment.zoom_probability', -0.5),
    ('augment.zoom', 0.0),
    ('augment.crop_shift', 2.0),
    ('rank_loss.margin', -0.1),
    ('rank_loss.weight', float('nan')),
    ('stages', ('coarse', ('class',))),
  ],
)
def test_values_that_cannot_be_trained_are_refused(key, value):
  config = project_configs.CONFIGS.get_config('test')
  check_config.check_config(config)
  with config.unlocked():
    group, _, name = key.rpartition('.')
    (config[group] if group else config)[name] = value
  with pytest.raises(errors.InputError, match=re.escape(key)) as e:
    check_config.check_config(config)
  assert len(str(e.value)) < 500


def test_a_run_that_would_train_nothing_is_refused():
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.start_from = 'lidc-small'
    for stage in ('coarse', 'class', 'fine'):
      check_config.check_config(config)
      config[f'{stage}_stage'].epochs = 0
  with pytest.raises(errors.InputError, match='every stage has 0 epochs'):
    check_config.check_config(config)


def test_main_refuses_a_dataset_of_too_few_patients(tmp_path, phantom_data_dir):
  # One nodule per split has only one class.
  done = run_module(
    'mtnet_jax.main',
    '--config=configs/mtnet.py:test',
    f'--config.dataset.data_dir={phantom_data_dir}',
    '--config.dataset.limit=1',
    f'--workdir={tmp_path}/run',
  )
  assert_refused(done, 'train split', 'benign and malignant')


@pytest.mark.parametrize(
  ('name', 'word'),
  [
    ('lidc_nodules/all', 'tfds_lidc.build --config=all'),
    ('mnist', 'lidc_nodules/paper'),
    ('lidc_nodules', 'lidc_nodules/paper'),
  ],
)
def test_evaluate_refuses_a_missing_dataset(
  made_run_dir, tmp_path, monkeypatch, capsys, name, word
):
  arguments = (
    f'--workdir={made_run_dir}',
    f'--dataset={name}',
    f'--data_dir={tmp_path}',
  )
  # Run in this process, since the imports of a new one take seconds.
  monkeypatch.setattr(sys, 'argv', ['evaluate', *arguments])
  with pytest.raises(SystemExit) as e:
    errors.exit_on_input_error(evaluate.main)
  done = subprocess.CompletedProcess(
    arguments, e.value.code, stderr=capsys.readouterr().err
  )
  assert_refused(done, name, word)


def test_main_refuses_a_workdir_that_cannot_be_written(
  tmp_path, phantom_data_dir
):
  # The parent is a file, where even root cannot make a folder.
  (tmp_path / 'file').write_text('mine')
  done = run_module(
    'mtnet_jax.main',
    '--config=configs/mtnet.py:test',
    f'--config.dataset.data_dir={phantom_data_dir}',
    f'--workdir={tmp_path}/file/run',
  )
  assert_refused(done, f'{tmp_path}/file/run', '--workdir')
  assert (tmp_path / 'file').read_text() == 'mine'


def test_main_refuses_a_batch_that_devices_cannot_share(
  tmp_path, phantom_data_dir
):
  done = run_module(
    'mtnet_jax.main',
    '--config=configs/mtnet.py:test',
    f'--config.dataset.data_dir={phantom_data_dir}',
    f'--workdir={tmp_path}/run',
    XLA_FLAGS='--xla_force_host_platform_device_count=3',
  )
  assert_refused(done, 'coarse_stage.batch_size=8', '3 devices')


def test_evaluate_refuses_a_folder_without_a_run(tmp_path):
  done = run_module('mtnet_jax.evaluate', f'--workdir={tmp_path}/none')
  assert_refused(done, f'{tmp_path}/none', 'mtnet_jax.main')
