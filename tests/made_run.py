"""Makes a finished run directory without training, with random variables."""

import jax
import numpy as np
import project_configs

from mtnet_jax import metrics
from mtnet_jax.evaluation import scores
from mtnet_jax.models import nets
from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir

# Smaller than the config :test, so that it compiles faster.
TINY = {
  'seg_net': {
    'stem_widths': (4, 4),
    'entry_widths': (4, 6),
    'middle_blocks': 0,
    'exit_width': 6,
    'tail_widths': (6,),
    'aspp_features': 4,
    'low_level_features': 3,
    'decoder_features': 4,
  },
  'class_net': {
    'stem_widths': (4, 4),
    'entry_widths': (4,),
    'middle_blocks': 0,
    'exit_width': 6,
    'tail_widths': (6,),
  },
}


def config_of(variant=None, *, spacing_mm=0.0):
  """Returns the config of a finished run on phantoms; by default a tiny one."""
  config = project_configs.CONFIGS.get_config(variant or 'test')
  with config.unlocked():
    if variant is None:
      config.update(TINY)
    config.dataset.name = 'lidc_nodules/phantom'
    config.dataset.fingerprint = '0123456789abcdef'
    config.dataset.spacing_mm = spacing_mm
  return config


def write(directory, config=None, *, seed=3, rows=None):
  """Writes a run: all that `mtnet_jax.load` reads, and some other files."""
  config = config or config_of()
  write_results(directory, config, rows)
  for name, variables in draw_variables(config, seed).items():
    checkpoints = checkpoint.Checkpoints(
      workdir.checkpoint_dir(directory, name)
    )
    checkpoints.save_best(1, variables, {'epoch': 1})
    if name == 'fine':
      history = [{'epoch': 1, 'step': 1, 'best': True}]
      checkpoints.save_latest(2, {'step': np.int32(2)}, {'history': history})
  return directory


def write_results(directory, config=None, rows=None):
  """Writes a run without checkpoints and report.

  Args:
    directory: the run directory.
    config: the run's config; a tiny one by default.
    rows: the records; random ones by default.
  """
  config, rows = config or config_of(), rows or records()
  workdir.claim(directory, config)
  diameter_model = {'slope': 0.3, 'intercept': -3.0}
  files.write_csv(directory / 'records.csv', rows)
  files.write_csv(
    directory / 'train_log.csv',
    [
      {
        'stage': stage,
        'epoch': epoch,
        'step': 8 * epoch,
        'loss': 1 / epoch,
        metric: epoch * 0.375,
        'best': True,
        'seconds': 1.5,
        'simulated': True,
      }
      for stage, metric in (
        ('coarse', 'val_jaccard'),
        ('class', 'val_auc'),
        ('fine', 'val_jaccard'),
      )
      for epoch in range(1, config[f'{stage}_stage'].epochs + 1)
    ],
  )
  files.write_json(
    directory / 'metrics.json',
    {
      **workdir.header(config, dataset=config.dataset.name, simulated=True),
      'diameter_only_model': diameter_model,
      'test': scores.summarise(
        rows, diameter_model=diameter_model, seed=config.seed
      ),
    },
  )
  return directory


def write_evaluation(runs, split, *, symmetries=True, seeds=(1, 2)):
  """Writes the results of an evaluation; returns the records."""
  folder = workdir.evaluation_dir(
    runs[0],
    'lidc_nodules/phantom',
    split,
    members=len(runs),
    symmetries=symmetries,
  )
  folder.mkdir(parents=True)
  rows = records()
  files.write_csv(folder / 'records.csv', rows)
  files.write_json(
    folder / 'metrics.json',
    {'members': [{'seed': seed, 'rotate_folds': 0} for seed in seeds]},
  )
  return rows


def draw_variables(config, seed=3):
  """Draws random variables of the three networks; see `draw_like`."""
  return draw_like(nets.variable_shapes(config), seed)


def draw_like(shapes, seed):
  """Draws random variables.

  Batch statistics differ from their initial values, so that a network that uses
  the statistics of the batch gives other outputs.

  Args:
    shapes: tree of values with a shape, such as from `jax.eval_shape`.
    seed: seed of the draw.
  """
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      values = rng.standard_normal(leaf.shape, np.float32)
      return np.float32(spread) * values
    low, high = (0.7, 1.4) if name in ('scale', 'var') else (-0.3, 0.3)
    return rng.uniform(low, high, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def patches(count, seed=0):
  """Returns (N, 64, 64) HU: discs of different sizes in noisy lung tissue."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:64, :64] - 32
  radius, lung = np.linspace((3, -900), (16, -500), count).T[..., None, None]
  hu = lung + rng.normal(0, 60, (count, 64, 64))
  return np.where(np.hypot(rows, columns) < radius, 40, hu).astype(np.int16)


def records():
  """Returns random records of six nodules of three patients."""
  rng = np.random.default_rng(0)
  return [
    {
      'nodule_id': f'nodule-{i}',
      'simulated': True,
      'patient_id': f'LIDC-IDRI-{i // 2:04}',
      'label': i % 2,
      'diameter_mm': 5.0 + i,
      'malignancy_probability': float(rng.uniform()),
      **{
        # The first nodule had a single reader.
        f'{who}reader_dice': float(rng.uniform()) if i else None
        for who in ('', 'consensus_', 'coarse_', 'fine_')
      },
      **{
        f'{net}_{key}': float(rng.uniform())
        for net in ('coarse', 'fine')
        for key in metrics.SEGMENTATION
      },
      **{
        f'{net}_{key}': value
        for net in ('coarse', 'fine')
        for key, value in zip(
          ('overlap', 'predicted', 'truth', 'pixels'),
          (20, 30, 40, 4096),
          strict=True,
        )
      },
    }
    for i in range(6)
  ]
