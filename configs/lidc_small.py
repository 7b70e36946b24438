"""The model that comes with the package, `lidc-small`, trained anew.

    python -m mtnet_jax.main --config=configs/lidc_small.py:phantoms
    for seed in 1 2; do
      python -m mtnet_jax.main --config=configs/lidc_small.py:nodules \\
        --config.seed=$seed --workdir=runs/lidc_small_$seed
    done
    for split in validation test; do
      python -m mtnet_jax.evaluate --split=$split --symmetries \\
        --workdir runs/lidc_small_1 runs/lidc_small_2
    done
    python -m mtnet_jax.bundle --run runs/lidc_small_1 runs/lidc_small_2 \\
      --symmetries --calibrate --float16 --name=lidc-small --out=lidc-small \\
      --leave_out LIDC-IDRI-0851_804_2 LIDC-IDRI-0800_855_3 --note="$note" \\
      --license=apache-2.0

The CT of these two nodules was missing, and `note` is the card's paragraph on
the crops. The networks of configs/mtnet.py:demo see 192 pixels, three for each
of a patch: first phantoms, then CT, in two trainings that are averaged. Folds 0
to 2 train, fold 3 chooses the epochs and calibrates, fold 4 tests. The model
began with phantoms of version 2.0.0; those of 3.0.0 give another.
"""

import pathlib
import runpy

_MTNET = runpy.run_path(str(pathlib.Path(__file__).with_name('mtnet.py')))
VARIANTS = ('phantoms', 'nodules')


def get_config(variant=''):
  """The config of a variant: 'phantoms', or 'nodules' after it."""
  if variant not in VARIANTS:
    raise ValueError(
      f'variant {variant!r} is unknown: take one of {", ".join(VARIANTS)}'
    )
  config = _MTNET['get_config']('demo')
  with config.unlocked():
    config.variant = f'lidc_small_{variant}'
    config.image_size = 192
    if variant == 'phantoms':
      _phantoms(config)
    else:
      _nodules(config)
  return config.lock()


def _phantoms(config):
  for stage, epochs in (('coarse', 4), ('class', 6), ('fine', 3)):
    config[f'{stage}_stage'].epochs = epochs


def _nodules(config):
  config.dataset.name = 'lidc_nodules/paper'
  config.dataset.fallback = ''
  config.start_from = 'runs/lidc_small_phantoms'
  config.views_per_image = 4
  config.class_net.dropout_rate = 0.2
  config.class_stage.weight_decay = 0.05
  for stage, epochs in (('coarse', 4), ('class', 8), ('fine', 7)):
    config[f'{stage}_stage'].epochs = epochs
    config[f'{stage}_stage'].learning_rate = 1e-3
