"""A wrong flag gives an error of one line."""

import main_job
import pytest


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--config.data_dir=x', "the config has no key 'data_dir'"),
    (
      '--config.dataset.data_dr=x',
      "the config has no key 'data_dr'; did you mean 'data_dir'?",
    ),
    (
      '--config=configs/mtnet.py:tst',
      "variant 'tst' is unknown: use one of mtnet, small, demo, test",
    ),
    (
      '--config.coarse_stage.epochs=a',
      'flag --config.coarse_stage.epochs=a: invalid literal for int() with'
      " base 10: 'a'",
    ),
  ],
)
def test_a_wrong_flag_gives_one_line(flag, message):
  config = '--config=configs/mtnet.py:test'
  done = main_job.run(main_job.module('mtnet_jax.main', config, flag))
  assert done.returncode == 2
  assert done.stderr == f'error: {message} (--help explains)\n'
