"""Configs: every key is read, variants differ where they should."""

import ast
import dataclasses

import jax
import main_job
import project_configs
import pytest

from mtnet_jax.data import augment
from mtnet_jax.models import baselines
from mtnet_jax.models import deeplab
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets
from mtnet_jax.models import strategies
from mtnet_jax.training import stage as stage_lib


def names(dataclass):
  return {field.name for field in dataclasses.fields(dataclass)}


def attributes_read():
  """`b.c` of every `a.b.c`, and `c` alone, in the package's source."""
  read = set()
  for path in (main_job.ROOT / 'mtnet_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        read.add(node.attr)
        if isinstance(node.value, ast.Attribute | ast.Name):
          owner = getattr(node.value, 'attr', getattr(node.value, 'id', ''))
          owner = owner.lstrip('_')
          read.add(f'{owner}.{node.attr}')
  return read


@pytest.mark.parametrize('variant', project_configs.CONFIGS.VARIANTS)
def test_every_key_is_read(variant):
  config = project_configs.CONFIGS.get_config(variant)
  # Groups that go into a constructor as they are: it takes every key.
  assert set(config.augment) == names(augment.Augmentation)
  assert set(config.seg_net) <= names(deeplab.DeepLabV3Plus)
  assert set(config.class_net) <= names(mtnet.ClassNet)
  assert set(config.unet) <= names(baselines.UNet)
  # `step` names these one by one.
  assert set(config.rank_loss) == {'weight', 'top_k', 'margin', 'max_top_k'}
  for stage in strategies.STAGES:
    assert set(config[f'{stage}_stage']) <= names(stage_lib.Stage)
  # The others are read one by one.
  read = attributes_read()
  passed_on = {'augment', 'seg_net', 'class_net', 'unet', 'rank_loss'}
  stage_groups = {f'{stage}_stage' for stage in strategies.STAGES}
  for key in set(config) - stage_groups:
    assert f'config.{key}' in read, key
    if key not in passed_on | stage_groups and hasattr(config[key], 'keys'):
      for inner in config[key]:
        assert f'{key}.{inner}' in read, f'{key}.{inner}'


def test_unknown_variant_names_the_known_ones():
  with pytest.raises(ValueError, match="'huge'.*mtnet, small, demo, test"):
    project_configs.CONFIGS.get_config('huge')


def test_paper_variant_is_the_design():
  config = project_configs.CONFIGS.get_config()
  assert (config.image_size, config.views_per_image) == (224, 10)
  assert config.coarse_stage.batch_size == 16
  assert config.class_stage.batch_size == 32
  assert config.fine_stage.epochs == 100
  assert config.class_stage.learning_rate == 1e-4
  # The nets of the config are those that constructors give.
  for name, net in nets.make_nets(config).items():
    plain = {
      'coarse': mtnet.CoarseSegNet(),
      'class': mtnet.ClassNet(),
      'fine': mtnet.FineSegNet(),
    }[name]
    assert net == plain


def test_small_variants_are_smaller():
  """Parameters of the coarse net: the paper's, then tens of times fewer."""
  counts = []
  for variant in project_configs.CONFIGS.VARIANTS:
    net = nets.make_nets(project_configs.CONFIGS.get_config(variant))['coarse']
    shapes = jax.eval_shape(
      lambda net=net: net.init(
        jax.random.key(0), jax.numpy.zeros((1, 64, 64, 3)), train=False
      )
    )
    counts.append(sum(x.size for x in jax.tree.leaves(shapes['params'])))
  assert counts[0] == 54_708_417
  paper, small, demo, test = counts
  assert small == demo
  assert paper > 50 * demo > 500 * test
