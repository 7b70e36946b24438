"""Ablations of MT-Net, each with one table and one figure.

    python -m mtnet_jax.sweep --config=configs/ablations.py:table4        paper
    python -m mtnet_jax.sweep --config=configs/ablations.py:table4,demo   15 min
    python -m mtnet_jax.sweep --config=configs/ablations.py:table4,test   2 min

    table4    Class-net with and without the coarse mask
    table5    coarse net, fine net, and fine net without the coarse mask
    figure7   the rank loss: K in 10..50, margin in 0.1..0.4
    figure8   the weight gamma of the rank loss: 0..0.1
    rank_loss   Dice loss with and without the rank loss (as in the paper), and
              the same with the pixels' cross-entropy added
    image_size  larger images or more epochs, in the same time; the sizes are
              multiples of the variant's, not of --config.base.image_size
    leakage   all slices, split by patient or by nodule
    folds     five-fold cross-validation

The part after the comma is the variant of configs/mtnet.py that all points
start from; `demo` and `test` run on phantoms. Its fields are flags:
--config.base.seed=1
"""

import pathlib
import runpy

import ml_collections

_MTNET = runpy.run_path(str(pathlib.Path(__file__).with_name('mtnet.py')))


def get_config(name: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a sweep: 'NAME' or 'NAME,VARIANT'."""
  name, _, variant = (name or '').partition(',')
  if name not in _SWEEPS:
    raise ValueError(
      f'sweep {name!r} is unknown: use one of {", ".join(_SWEEPS)}, with'
      f' or without a variant such as {name or "table4"},test'
    )
  config = ml_collections.ConfigDict()
  config.name = name
  config.base = _MTNET['get_config'](variant)
  # Each point is trained once for each of these test folds, such as
  # (0, 1, 2, 3, 4), and its results are those of all their nodules together.
  # Empty: one training, with the splits of the base.
  config.test_folds = ()
  # Outputs to compare: 'coarse', 'fine' and 'class'. Empty: all of them.
  config.outputs = ()
  with config.base.unlocked():
    _SWEEPS[name](config)
  return config.lock()


def _with_and_without_mask(config, **titles):
  config.kind = 'table'
  config.reference = 'with_mask'
  config.points = {'with_mask': {}, 'without_mask': {'coarse_mask': 'none'}}
  config.titles = titles


def _table4(config):
  config.title = 'Class-net with and without the coarse mask (Table 4)'
  config.base.stages = ('coarse', 'class')
  _with_and_without_mask(
    config,
    with_mask='with the coarse mask',
    without_mask='without the coarse mask',
  )
  config.outputs = ('class',)


def _table5(config):
  config.title = 'Coarse and Fine Seg-net, with and without mask (Table 5)'
  config.base.stages = ('coarse', 'fine')
  _with_and_without_mask(config, with_mask='', without_mask='without mask')
  config.outputs = ('coarse', 'fine')


def _figure7(config):
  config.title = 'K and margin of the rank loss (Figure 7)'
  config.kind = 'grid'
  config.base.stages = ('coarse',)
  # With this, one compiled program is enough for every K.
  config.base.rank_loss.max_top_k = 50
  config.reference = 'k20_margin30'
  config.points = {
    f'k{top_k}_margin{per_cent}': {
      'rank_loss': {'top_k': top_k, 'margin': per_cent / 100}
    }
    for top_k in (10, 20, 30, 40, 50)
    for per_cent in (10, 20, 30, 40)
  }
  config.outputs = ('coarse',)


def _figure8(config):
  config.title = 'Weight gamma of the rank loss (Figure 8)'
  config.kind = 'curve'
  config.base.stages = ('coarse',)
  config.reference = 'gamma02'
  config.points = {
    f'gamma{per_cent:02}': {'rank_loss': {'weight': per_cent / 100}}
    for per_cent in (0, 1, 2, 5, 10)
  }
  config.outputs = ('coarse',)


def _rank_loss(config):
  config.title = 'With and without the rank loss'
  config.kind = 'table'
  config.base.stages = ('coarse',)
  config.reference = 'dice_rank'
  without = {'rank_loss': {'weight': 0.0}}
  config.points = {
    'dice': {'cross_entropy_weight': 0.0, **without},
    'dice_rank': {'cross_entropy_weight': 0.0},
    'dice_entropy': {'cross_entropy_weight': 1.0, **without},
    'dice_entropy_rank': {'cross_entropy_weight': 1.0},
  }
  config.titles = {
    'dice': 'Dice loss',
    'dice_rank': 'Dice and rank loss, as in the paper',
    'dice_entropy': 'Dice loss and cross-entropy',
    'dice_entropy_rank': 'Dice loss, cross-entropy and rank loss',
  }
  config.outputs = ('coarse',)


def _image_size(config):
  config.title = 'Larger images or more epochs, in the same time'
  config.kind = 'table'
  config.base.stages = ('coarse',)
  usual = config.base.image_size
  # Three digits, since points are sorted by name.
  config.reference = f'size{usual:03}'
  epochs = config.base.coarse_stage.get_ref('epochs')
  sizes = {round(usual * share / 16) * 16 for share in (0.85, 1.15, 1.4, 1.7)}
  sizes = sorted({usual, *sizes})
  config.points = ml_collections.ConfigDict(
    {
      f'size{size:03}': {
        'image_size': size,
        # The time of a step is proportional to its pixels. Rounded to whole
        # epochs.
        'coarse_stage': {
          'epochs': (2 * epochs * usual**2 + size**2) // (2 * size**2)
        },
      }
      for size in sizes
    }
  )
  config.titles = {
    f'size{size:03}': f'{size} x {size} pixels' for size in sizes
  }
  config.outputs = ('coarse',)


def _leakage(config):
  config.title = 'What leakage is worth: all slices, split two ways'
  config.kind = 'table'
  config.reference = 'by_patient'
  policy = 'slices=all'
  if config.base.variant == 'test':
    # Fewer nodules, which can be built in a minute.
    policy = 'readers=4,thickness=1.5,slices=all'
  config.points = {
    f'by_{unit}': {
      'dataset': {
        key: f'lidc_nodules/{name}?{policy},split_by={unit}'
        for key, name in (
          ('name', config.base.dataset.name.rpartition('/')[2]),
          ('fallback', config.base.dataset.fallback.rpartition('/')[2]),
        )
        if name
      }
    }
    for unit in ('patient', 'nodule')
  }
  config.titles = {
    'by_patient': 'split by patient',
    'by_nodule': 'split by nodule',
  }


def _folds(config):
  config.title = 'Five-fold cross-validation'
  config.kind = 'folds'
  config.reference = 'fold4'
  config.points = {
    # The name has the test fold, which is 4 without rotation.
    f'fold{(4 + turn) % 5}': {'dataset': {'rotate_folds': turn}}
    for turn in range(5)
  }
  config.titles = {f'fold{fold}': f'tested on fold {fold}' for fold in range(5)}


_SWEEPS = {
  'table4': _table4,
  'table5': _table5,
  'figure7': _figure7,
  'figure8': _figure8,
  'rank_loss': _rank_loss,
  'image_size': _image_size,
  'leakage': _leakage,
  'folds': _folds,
}
