r"""Trains `lidc-small`, the model that comes with the package.

    python -m mtnet_jax.main --config=configs/lidc_small.py:phantoms
    for seed in 1 2; do
      python -m mtnet_jax.main --config=configs/lidc_small.py:nodules \
        --config.seed=$seed --workdir=runs/lidc_small_$seed
    done
    for split in validation test; do
      python -m mtnet_jax.evaluate --split=$split --symmetries \
        --workdir runs/lidc_small_1 runs/lidc_small_2
    done
    python -m mtnet_jax.bundle --run runs/lidc_small_1 runs/lidc_small_2 \
      --symmetries --calibrate --float16 --name=lidc-small --out=lidc-small \
      --leave_out LIDC-IDRI-0851_804_2 LIDC-IDRI-0800_855_3 --note="$note" \
      --license=apache-2.0

The CT of these two nodules was missing, and `note` is the paragraph on the
crops in the model card. The networks are those of configs/mtnet.py:demo, with
images of 192 x 192 pixels, three times the patch's side. They are trained first
on phantoms and then on CT, twice, and the two models are averaged. Folds 0 to 2
are for training, fold 3 for selecting epochs and calibration, fold 4 for tests.
The shipped model was pretrained on phantoms of version 2.0.0; with those of
3.0.0 this config gives another model.
"""

import pathlib
import runpy

import ml_collections

_MTNET = runpy.run_path(str(pathlib.Path(__file__).with_name('mtnet.py')))
VARIANTS = ('phantoms', 'nodules')


def get_config(variant: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a variant: 'phantoms', then 'nodules'."""
  if variant not in VARIANTS:
    raise ValueError(
      f'variant {variant!r} is unknown: use one of {", ".join(VARIANTS)}'
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
