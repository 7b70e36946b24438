"""What a user can get wrong ends in one clear line, not in a traceback."""

import main_job
import pytest


def run_module(name, *arguments, **env):
  return main_job.run(main_job.module(name, *arguments), **env)


def assert_refused(done, *says):
  """Exit code 2, one line on stderr that holds every word."""
  assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1, done.stderr[-2000:]
  for word in says:
    assert str(word) in lines[0], lines[0]


@pytest.mark.parametrize(
  ('flags', 'says'),
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
def test_main_refuses(flags, says, tmp_path):
  if any('fallback' in flag for flag in flags):
    flags = [*flags, f'--config.dataset.data_dir={tmp_path}/empty']
  done = run_module('mtnet_jax.main', f'--workdir={tmp_path}/run', *flags)
  assert_refused(done, *says)
  assert not (tmp_path / 'run').exists()


def test_main_refuses_a_workdir_that_cannot_be_written(
  tmp_path, phantom_data_dir
):
  # A file where the folder should be: also root cannot write there.
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


def test_evaluate_refuses_what_is_no_run(tmp_path):
  done = run_module('mtnet_jax.evaluate', f'--workdir={tmp_path}/none')
  assert_refused(done, f'{tmp_path}/none', 'mtnet_jax.main')
