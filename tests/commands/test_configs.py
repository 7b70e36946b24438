"""Configs: every key is read, and variants have the intended values."""

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
  """Returns `b.c` and `c` for every `a.b.c` in the source of the package."""
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
  # These groups are the arguments of constructors.
  assert set(config.augment) == names(augment.Augmentation)
  assert set(config.seg_net) <= names(deeplab.DeepLabV3Plus)
  assert set(config.class_net) <= names(mtnet.ClassNet)
  assert set(config.unet) <= names(baselines.UNet)
  # `step` reads these keys one by one.
  assert set(config.rank_loss) == {'weight', 'top_k', 'margin', 'max_top_k'}
  for stage in strategies.STAGES:
    assert set(config[f'{stage}_stage']) <= names(stage_lib.Stage)
  # All other keys are read somewhere.
  read = attributes_read()
  passed_on = {'augment', 'seg_net', 'class_net', 'unet', 'rank_loss'}
  stage_groups = {f'{stage}_stage' for stage in strategies.STAGES}
  for key in set(config) - stage_groups:
    assert f'config.{key}' in read, key
    if key not in passed_on | stage_groups and hasattr(config[key], 'keys'):
      for inner in config[key]:
        assert f'{key}.{inner}' in read, f'{key}.{inner}'


def test_an_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="'huge'.*mtnet, small, demo, test"):
    project_configs.CONFIGS.get_config('huge')


def test_the_default_variant_is_the_paper_s():
  config = project_configs.CONFIGS.get_config()
  assert (config.image_size, config.views_per_image) == (224, 10)
  assert config.coarse_stage.batch_size == 16
  assert config.class_stage.batch_size == 32
  assert config.fine_stage.epochs == 100
  assert config.class_stage.learning_rate == 1e-4
  # The config's networks are those that the constructors make by default.
  for name, net in nets.make_nets(config).items():
    plain = {
      'coarse': mtnet.CoarseSegNet(),
      'class': mtnet.ClassNet(),
      'fine': mtnet.FineSegNet(),
    }[name]
    assert net == plain


def test_small_variants_are_smaller():
  """The coarse net has the paper's parameters, or tens of times fewer."""
  num_params = []
  for variant in project_configs.CONFIGS.VARIANTS:
    net = nets.make_nets(project_configs.CONFIGS.get_config(variant))['coarse']
    shapes = jax.eval_shape(
      lambda net=net: net.init(
        jax.random.key(0), jax.numpy.zeros((1, 64, 64, 3)), train=False
      )
    )
    num_params.append(sum(x.size for x in jax.tree.leaves(shapes['params'])))
  assert num_params[0] == 54_708_417
  paper, small, demo, test = num_params
  assert small == demo
  assert paper > 50 * demo > 500 * test
