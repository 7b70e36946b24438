"""The runs of a sweep, and which of them may share a coarse net."""

import json

import project_configs
import pytest

from mtnet_jax.experiments import sweep_plan
from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors
from mtnet_jax.training import check_config
from mtnet_jax.training import options
from mtnet_jax.training import stages

NAMES = (
  'table4',
  'table5',
  'figure7',
  'figure8',
  'rank_loss',
  'image_size',
  'leakage',
  'folds',
)


def plan_of(name):
  return sweep_plan.points(project_configs.ABLATIONS.get_config(name))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('variant', ('', ',small', ',demo', ',test'))
def test_every_sweep_can_be_trained(name, variant):
  config = project_configs.ABLATIONS.get_config(name + variant)
  plan = sweep_plan.points(config)
  assert config.reference in {point.name for point in plan}
  assert config.base.variant == (variant[1:] or 'mtnet')
  configs = [json.loads(point.config.to_json()) for point in plan]
  for i, point in enumerate(plan):
    check_config.check_config(point.config)
    # No two points are the same run.
    assert configs[i] not in configs[:i]
  assert {output for output in config.outputs} <= set(config.base.stages)


def test_unknown_sweeps_and_variants_are_refused():
  with pytest.raises(ValueError, match="'table9'.*table4.*folds.*table9,test"):
    project_configs.ABLATIONS.get_config('table9')
  with pytest.raises(ValueError, match="'huge'.*mtnet, small, demo, test"):
    project_configs.ABLATIONS.get_config('table4,huge')


def test_figure_7_is_the_paper_s_grid():
  found = {
    (point.config.rank_loss.top_k, point.config.rank_loss.margin)
    for point in plan_of('figure7')
  }
  assert found == {
    (top_k, margin)
    for top_k in (10, 20, 30, 40, 50)
    for margin in (0.1, 0.2, 0.3, 0.4)
  }


def test_figure_8_is_the_paper_s_curve():
  plan = plan_of('figure8')
  assert [point.config.rank_loss.weight for point in plan] == [
    0,
    0.01,
    0.02,
    0.05,
    0.1,
  ]
  assert {point.config.rank_loss.top_k for point in plan} == {20}
  assert {point.config.rank_loss.margin for point in plan} == {0.3}


def test_rank_loss_has_both_other_losses_with_and_without_it():
  base = project_configs.ABLATIONS.get_config('rank_loss').base
  found = {
    point.name: (
      point.config.cross_entropy_weight,
      point.config.rank_loss.weight,
    )
    for point in plan_of('rank_loss')
  }
  assert found == {
    'dice': (0, 0),
    'dice_rank': (0, 0.02),
    'dice_entropy': (1, 0),
    'dice_entropy_rank': (1, 0.02),
  }
  # The reference is the paper's own loss.
  assert (base.cross_entropy_weight, base.rank_loss.weight) == (0, 0.02)


@pytest.mark.parametrize(
  ('name', 'expected'),
  # Another form of the coarse mask needs another program.
  (('figure7,test', 1), ('figure7', 1), ('figure8', 1), ('table4', 2)),
)
def test_points_that_differ_in_hyperparameters_share_a_program(name, expected):
  """Everything that a compiled step depends on is equal."""
  programs = {
    (
      stages.make_stages(point.config)[0],
      options.step_options(point.config, steps_per_epoch=1),
    )
    for point in plan_of(name)
  }
  assert len(programs) == expected


@pytest.mark.parametrize(
  ('name', 'sizes'),
  (('table4', [2]), ('table5', [2]), ('figure8', [1] * 5), ('leakage', [1, 1])),
)
def test_points_share_a_coarse_net_where_its_config_is_the_same(name, sizes):
  assert list(map(len, sweep_plan.groups(plan_of(name)))) == sizes


def test_folds_rotate_through_all_five():
  """Each fold is tested once, validates once and trains three times."""
  rotations = {
    point.name: point.config.dataset.rotate_folds for point in plan_of('folds')
  }
  assert rotations['fold4'] == 0
  assert sorted(rotations.values()) == [0, 1, 2, 3, 4]


def plan_of_folds(*folds, name='table4', **overrides):
  config = project_configs.ABLATIONS.get_config(f'{name},test')
  with config.unlocked():
    config.test_folds = folds
    if overrides:
      config.points.without_mask = overrides
  return sweep_plan.points(config)


def test_each_point_is_tested_on_each_fold():
  plan = plan_of_folds(4, 1)
  assert [point.folder for point in plan] == [
    'with_mask/fold4',
    'with_mask/fold1',
    'without_mask/fold4',
    'without_mask/fold1',
  ]
  for point in plan:
    # Three folds train, the next one validates, and the one after that tests.
    test_fold = (point.config.dataset.rotate_folds + 4) % 5
    assert point.folder.endswith(f'fold{test_fold}')
    assert point.config.coarse_mask == (
      'none' if point.name == 'without_mask' else 'hard'
    )
  assert [p.folder for p in sweep_plan.once_each(plan)] == [
    'with_mask/fold4',
    'without_mask/fold4',
  ]
  # Runs with the same test fold share a coarse net.
  assert [
    [point.folder for point in group] for group in sweep_plan.groups(plan)
  ] == [
    ['with_mask/fold4', 'without_mask/fold4'],
    ['with_mask/fold1', 'without_mask/fold1'],
  ]


def test_without_test_folds_a_point_has_a_folder_of_its_name():
  assert [p.folder for p in plan_of('table4')] == ['with_mask', 'without_mask']


@pytest.mark.parametrize('folds', ((5,), (1, 1), (-1,), (0.5,), ('4',)))
def test_invalid_test_folds_are_refused(folds):
  with pytest.raises(errors.InputError, match='test_folds.*0 to 4'):
    plan_of_folds(*folds)


def test_points_that_rotate_folds_cannot_have_test_folds():
  with pytest.raises(errors.InputError, match='without_mask rotates'):
    plan_of_folds(1, 2, dataset={'rotate_folds': 3})


def test_larger_images_have_as_many_pixels_in_fewer_epochs():
  plan = plan_of('image_size,small')
  epochs = {
    point.config.image_size: point.config.coarse_stage.epochs for point in plan
  }
  # 12 epochs of 112 pixels: 12 * (112 / 128)**2 is 9.19, and so on.
  assert epochs == {112: 12, 96: 16, 128: 9, 160: 6, 192: 4}
  assert plan[0].name == 'size112'


def test_points_are_described_with_the_paper_s_symbols():
  overrides = {'rank_loss': {'margin': 0.1, 'top_k': 30}}
  assert sweep_plan.describe(overrides) == 'K = 30, margin = 0.1'
  assert sweep_plan.describe({}) == ''


def test_an_override_of_an_unknown_field_is_refused():
  config = project_configs.ABLATIONS.get_config('table4,test')
  with config.unlocked():
    config.points.without_mask = {'coarse_maks': 'none'}
  with pytest.raises(errors.InputError, match='without_mask.*coarse_maks'):
    sweep_plan.points(config)


def test_a_reference_that_is_not_a_point_is_refused():
  config = project_configs.ABLATIONS.get_config('table4,test')
  config.reference = 'mask'
  with pytest.raises(errors.InputError, match="'mask'.*with_mask"):
    sweep_plan.points(config)


def claim(directory, name='table4,test', changed=None, **changes):
  config = project_configs.ABLATIONS.get_config(name)
  with config.unlocked():
    config.base.update(changes)
  plan = sweep_plan.points(config, changed=changed)
  sweep_plan.claim(directory, config, plan)


def test_a_sweep_with_former_names_of_keys_is_resumed(tmp_path):
  claim(tmp_path)
  path = tmp_path / 'sweep.json'
  text = path.read_text()
  for key, former in (
    ('views_per_image', 'looks_per_epoch'),
    ('steps_per_call', 'steps_at_once'),
    ('max_top_k', 'most'),
  ):
    assert f'"{key}"' in text
    text = text.replace(f'"{key}"', f'"{former}"')
  path.write_text(text)
  claim(tmp_path)


def test_a_directory_can_only_be_claimed_again_by_the_same_sweep(tmp_path):
  directory = tmp_path / 'sweep'
  claim(directory)
  claim(directory)
  with pytest.raises(errors.InputError, match='name was table4.*table5'):
    claim(directory, 'table5,test')
  with pytest.raises(errors.InputError, match='with_mask.seed was 0.*now 1'):
    claim(directory, seed=1)


def test_a_new_field_with_its_default_value_is_the_same_sweep(tmp_path):
  claim(tmp_path)
  claim(tmp_path, changed={'base.seed'}, noise=0.1)
  for changed in (None, {'base.noise'}):
    with pytest.raises(errors.InputError, match='noise was nothing and is'):
      claim(tmp_path, changed=changed, noise=0.1)


def test_a_point_s_own_value_of_a_new_field_makes_another_sweep():
  config = project_configs.ABLATIONS.get_config('figure8,test')
  plan = sweep_plan.points(config, changed={'base.seed', 'outputs'})
  for point in plan:
    assert point.changed == {'seed', 'outputs', 'rank_loss.weight'}


def test_other_points_are_another_sweep(tmp_path):
  config = project_configs.ABLATIONS.get_config('table4,test')
  whole = sweep_plan.points(config, changed=())
  sweep_plan.claim(tmp_path / 'two', config, whole)
  sweep_plan.claim(tmp_path / 'one', config, whole[:1])
  with pytest.raises(errors.InputError, match='point without_mask is new'):
    sweep_plan.claim(tmp_path / 'one', config, whole)
  with pytest.raises(errors.InputError, match='without_mask no longer exists'):
    sweep_plan.claim(tmp_path / 'two', config, whole[:1])


@pytest.mark.parametrize('text', ('[]', '{"points": null}', '{"points": [1]}'))
def test_a_damaged_sweep_is_refused(tmp_path, text):
  (tmp_path / 'sweep.json').write_text(text)
  with pytest.raises(errors.InputError, match=r'sweep\.json is damaged'):
    claim(tmp_path)


def test_a_sweep_of_another_version_is_refused(tmp_path):
  claim(tmp_path)
  path = tmp_path / 'sweep.json'
  tree = json.loads(path.read_text())
  path.write_text(json.dumps({**tree, 'mtnet_jax': '0.0.1'}))
  with pytest.raises(errors.InputError, match='mtnet_jax was 0.0.1'):
    claim(tmp_path)


def test_a_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / 'thesis.txt').write_text('')
  with pytest.raises(errors.InputError, match='not a sweep.*not empty'):
    claim(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_a_coarse_stage_is_copied_unless_there_is_one(tmp_path):
  def save(name, value):
    checkpoints = checkpoint.Checkpoints(
      workdir.checkpoint_dir(tmp_path / name, 'coarse')
    )
    checkpoints.save_best(1, {'params': {'x': value}}, {'epoch': 1})

  def best(name):
    found, _ = checkpoint.load_best(
      workdir.checkpoint_dir(tmp_path / name, 'coarse')
    )
    return found['params']['x']

  save('donor', 1.0)
  save('own', 2.0)
  for name in ('new', 'own'):
    sweep_plan.copy_coarse_stage(tmp_path / 'donor', tmp_path / name)
  assert best('new') == 1
  assert best('own') == 2
