r"""MT-Net compared with other strategies, on the same blocks, data and budget.

    python -m mtnet_jax.sweep --config=configs/baselines.py:table1       paper
    python -m mtnet_jax.sweep --config=configs/baselines.py:table1,demo  30 min
    python -m mtnet_jax.sweep --config=configs/baselines.py:table1,test  5 min

    table1    the strategies of the paper's comparison: Wu et al., Chen et al.,
              Yu et al., and single-task networks (U-Net and Xception)
    tables    the same, and MT-Net without the coarse mask: Tables 1, 4 and 5
              from one coarse net
    variants  beyond the paper: soft masks; all three networks trained together
              through soft masks; the activation map fed to the fine layer

The part after the comma is the variant of configs/mtnet.py that all points
start from; `demo` and `test` run on phantoms. Its fields are flags:
--config.base.seed=1. Each point is an ordinary run with `config.strategy` set:

    python -m mtnet_jax.main --config=configs/mtnet.py:test \
        --config.strategy=serial

but its epochs are adapted to the budget of MT-Net, which this command does not
do. An epoch has the same views of the same nodules in every strategy.

* MT-Net has two segmentation networks, one after the other, and a third network
  for classification. In other strategies, a segmentation network has the epochs
  of both (200 at the paper's size), and a classification network those of
  Class-net (100).
* A network for both tasks learns both in each epoch, and also has the epochs of
  both Seg-nets: as many for segmentation as MT-Net, and more for
  classification.
* Joint fine-tuning has half of Fine Seg-net's epochs. Each network's own stage
  is shorter by as many, so that every network learns for as long as in MT-Net.

Batch sizes and learning rates are those of the task's stage in MT-Net; a stage
for both tasks has those of segmentation.
"""

import pathlib
import runpy

import ml_collections

_MTNET = runpy.run_path(str(pathlib.Path(__file__).with_name('mtnet.py')))


def get_config(name: str = '') -> ml_collections.ConfigDict:
  """Returns the config of a comparison: 'NAME' or 'NAME,VARIANT'."""
  name, _, variant = (name or '').partition(',')
  if name not in _SWEEPS:
    raise ValueError(
      f'comparison {name!r} is unknown: use one of {", ".join(_SWEEPS)}, with'
      f' or without a variant such as {name or "table1"},test'
    )
  config = ml_collections.ConfigDict()
  config.name = name
  config.kind = 'table'
  config.reference = 'mtnet'
  config.base = _MTNET['get_config'](variant)
  # Each point is trained once for each of these test folds, such as
  # (0, 1, 2, 3, 4), and its results are those of all their nodules together.
  # Empty: one training, with the splits of the base.
  config.test_folds = ()
  # Outputs to compare: 'coarse', 'fine' and 'class'. Empty: all of them.
  config.outputs = ('fine', 'class')
  config.title, config.titles, points = _SWEEPS[name](config.base)
  config.points = ml_collections.ConfigDict(points)
  if name == 'tables':
    config.outputs = ()  # All of them: Table 5 also has coarse masks.
  return config.lock()


def _table1(base):
  coarse, _, fine = _epochs(base)
  both_tasks = {
    'joint_stage': {'epochs': coarse + fine, **_like_segmentation(base)},
    # These strategies have no network that such weights fit.
    'pretrained': {'classification': ''},
  }
  segmentation = {'fine_stage': {'epochs': coarse + fine}}
  points = {
    'mtnet': {},
    'shared': {'strategy': 'shared', **both_tasks},
    'feedback': {'strategy': 'feedback', **both_tasks},
    'serial': {'strategy': 'serial', **segmentation},
    'single': {
      'strategy': 'single',
      'pretrained': {'segmentation': ''},
      **segmentation,
    },
  }
  titles = {
    'mtnet': 'MT-Net',
    'shared': 'Wu et al. [30]: shared encoder',
    'feedback': (
      'Chen et al. [31]: shared encoder, segmentation features fed back'
    ),
    'serial': 'Yu et al. [1]: serial, the mask cuts the nodule out',
    'single': 'single tasks: U-Net and Xception',
  }
  return 'Multi-task strategies (Table 1)', titles, points


def _tables(base):
  _, titles, points = _table1(base)
  return (
    'Strategies, and what the coarse mask is worth (Tables 1, 4 and 5)',
    {**titles, 'without_mask': 'MT-Net without the coarse mask'},
    {**points, 'without_mask': {'coarse_mask': 'none'}},
  )


def _variants(base):
  coarse, classify, fine = _epochs(base)
  together = fine // 2
  points = {
    'mtnet': {},
    'soft': {'coarse_mask': 'soft'},
    'cam': {'strategy': 'cam'},
    'finetune': {
      'strategy': 'finetune',
      'coarse_mask': 'soft',
      'coarse_stage': {'epochs': coarse - together},
      'class_stage': {'epochs': classify - together},
      'fine_stage': {'epochs': fine - together},
      'joint_stage': {'epochs': together, **_like_segmentation(base)},
    },
  }
  titles = {
    'mtnet': 'MT-Net',
    'soft': 'MT-Net with soft masks',
    'cam': 'activation map to the fine layer',
    'finetune': 'soft masks, fine-tuned together',
  }
  return 'MT-Net with its tasks tied more closely', titles, points


# Returns references, so that the points follow flags that change the base.
def _epochs(base):
  return [
    base[f'{name}_stage'].get_ref('epochs')
    for name in ('coarse', 'class', 'fine')
  ]


def _like_segmentation(base):
  return {
    key: base.fine_stage.get_ref(key)
    for key in ('batch_size', 'learning_rate', 'schedule')
  }


_SWEEPS = {'table1': _table1, 'tables': _tables, 'variants': _variants}
