"""Nodules are read into memory, and an epoch leaves none of them out."""

import dataclasses

import fake_records
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from mtnet_jax.data import feeding
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.system import errors


def _nodules(label):
  count = len(label)
  pixels = np.arange(count * 4).reshape(count, 2, 2)
  return nodules_lib.Nodules(
    image=pixels.astype(np.int16),
    mask=(pixels % 2).astype(np.uint8),
    votes=(pixels % 5).astype(np.uint8),
    label=np.asarray(label, np.int32),
    info={'nodule_id': np.array([f'n{i}' for i in range(count)])},
    simulated=True,
  )


@hypothesis.settings(deadline=None, derandomize=True, database=None)
@hypothesis.given(
  num_examples=st.integers(1, 40),
  views=st.integers(1, 10),
  batch_size=st.integers(1, 64),
)
def test_an_epoch_holds_every_view_in_whole_batches(
  num_examples, views, batch_size
):
  order = feeding.epoch_order(
    num_examples, views=views, batch_size=batch_size, seed=(3, 0)
  )
  steps = feeding.steps_per_epoch(num_examples, views, batch_size)
  assert order.shape == (steps * batch_size, 2)
  assert len(order) - num_examples * views in range(batch_size)
  pairs, counts = np.unique(order, axis=0, return_counts=True)
  expected = [(i, j) for i in range(num_examples) for j in range(views)]
  assert list(map(tuple, pairs)) == expected
  # Views that fill the last batch are repeated equally often.
  assert counts.max() - counts.min() <= 1


def test_a_batch_larger_than_the_epoch_is_one_step():
  # The order of 2 examples x 2 views is repeated up to 10.
  order = feeding.epoch_order(2, views=2, batch_size=10, seed=0)
  assert len(order) == 10
  np.testing.assert_array_equal(order[4:8], order[:4])
  np.testing.assert_array_equal(order[8:], order[:2])
  assert len(np.unique(order, axis=0)) == 4


def test_order_follows_the_seed_and_the_epoch():
  def order(*seed):
    return feeding.epoch_order(20, views=3, batch_size=8, seed=seed).tolist()

  assert order(1, 0) == order(1, 0)
  assert order(1, 0) != order(1, 1)
  assert order(1, 0) != order(2, 0)
  assert order(1, 0) != sorted(order(1, 0))


@pytest.mark.parametrize(
  'examples, views, batch, steps',
  ((16, 1, 16, 1), (17, 1, 16, 2), (854, 10, 16, 534), (1, 1, 16, 1)),
)
def test_steps_per_epoch(examples, views, batch, steps):
  # 8540 / 16 = 533.75.
  assert feeding.steps_per_epoch(examples, views, batch) == steps


@pytest.mark.parametrize(
  'where', ([3, 1], np.array([False, True, False, True]))
)
def test_take_selects_from_every_field(where):
  nodules = _nodules([0, 1, -1, 1])
  taken = nodules.take(where)
  indices = where if isinstance(where, list) else [1, 3]
  assert len(taken) == 2
  for name in ('image', 'mask', 'votes', 'label'):
    np.testing.assert_array_equal(
      getattr(taken, name), getattr(nodules, name)[indices]
    )
  assert list(taken.info['nodule_id']) == [f'n{i}' for i in indices]
  assert taken.simulated
  assert len(nodules) == 4


def test_take_knows_every_field():
  # A field that `take` does not know would keep its old length.
  arrays = {
    field.name
    for field in dataclasses.fields(nodules_lib.Nodules)
    if field.type is np.ndarray
  }
  assert arrays == {'image', 'mask', 'votes', 'label'}


def test_labelled_are_benign_or_malignant():
  labelled = _nodules([0, -1, 1, -1]).labelled()
  np.testing.assert_array_equal(labelled.label, [0, 1])
  assert list(labelled.info['nodule_id']) == ['n0', 'n2']


def test_load_reads_records(built):
  nodules = lidc.load_split('lidc_nodules/phantom', 'test')
  assert len(nodules) == 3 and nodules.simulated
  assert nodules.image.shape == (3, 2, 2) and nodules.image.dtype == np.int16
  assert nodules.mask.dtype == nodules.votes.dtype == np.uint8
  np.testing.assert_array_equal(nodules.image[:, 0, 0], [-1000, -999, -998])
  np.testing.assert_array_equal(nodules.mask[:, 1, 1], [0, 1, 0])
  np.testing.assert_array_equal(nodules.votes[:, 1, 1], [0, 1, 2])
  np.testing.assert_array_equal(nodules.label, [-1, 0, 1])
  assert list(nodules.info['nodule_id']) == ['n0', 'n1', 'n2']
  np.testing.assert_array_equal(nodules.info['slice_index'], [10, 11, 12])
  # A rating becomes the mean of the readers', (1 + 4) / 2.
  np.testing.assert_array_equal(nodules.info['texture'], [2.5] * 3)
  # Malignancy has another name: `malignancy_probability` is the networks'.
  np.testing.assert_array_equal(
    nodules.info['malignancy_rating_mean'], [2.5] * 3
  )
  assert 'malignancy' not in nodules.info
  assert set(nodules.arrays()) == {'image', 'mask', 'label'}


def test_load_stops_at_the_limit(built):
  nodules = lidc.load_split('lidc_nodules/paper', 'test', limit=2)
  assert len(nodules) == 2
  assert len(lidc.load_split('lidc_nodules/paper', 'test', limit=9)) == 3


@pytest.fixture(name='folded')
def _folded(built):
  """Ten records in three splits by their folds: n0 and n5 in fold 0, ..."""
  members = {'train': (0, 1, 2), 'validation': (3,), 'test': (4,)}
  built.info.splits = dict.fromkeys(members)
  built.as_data_source = lambda split: fake_records.Records(
    {**fake_records.record(i), 'fold': i % 5}
    for i in range(10)
    if i % 5 in members[split]
  )


@pytest.mark.parametrize(
  ('turn', 'train', 'validation', 'test'),
  (
    (0, {0, 1, 2}, {3}, {4}),
    (1, {1, 2, 3}, {4}, {0}),
    (2, {2, 3, 4}, {0}, {1}),
    (4, {4, 0, 1}, {2}, {3}),
  ),
)
def test_folds_rotate(folded, turn, train, validation, test):
  for split, folds in (
    ('train', train),
    ('validation', validation),
    ('test', test),
  ):
    nodules = lidc.load_split('lidc_nodules/phantom', split, rotate_folds=turn)
    assert set(nodules.info['fold']) == folds
    # Every nodule of these folds, each with its own image.
    expected = {f'n{i}' for i in range(10) if i % 5 in folds}
    assert set(nodules.info['nodule_id']) == expected
    assert len(nodules) == len(expected)
    np.testing.assert_array_equal(
      nodules.image[:, 0, 0],
      [int(name[1:]) - 1000 for name in nodules.info['nodule_id']],
    )
    limited = lidc.load_split(
      'lidc_nodules/phantom', split, rotate_folds=turn, limit=1
    )
    assert set(limited.info['fold']) <= folds and len(limited) == 1


def test_a_run_uses_the_nodules_of_its_splits(folded):
  """Each fold has two nodules: n0 and n5, n1 and n6, ..."""
  for turn, limit, train, validation in (
    (0, 0, '012567', '38'),
    (1, 0, '123678', '49'),
    # Only the nodules that were read.
    (0, 2, '01', '38'),
    (0, 1, '0', '3'),
  ):
    splits = {
      split: lidc.load_split(
        'lidc_nodules/phantom', split, rotate_folds=turn, limit=limit
      )
      for split in lidc.SPLITS
    }
    patient = 'LIDC-IDRI-0001'
    assert nodules_lib.used_for(splits) == {
      *((f'n{i}', patient, 'train') for i in train),
      *((f'n{i}', patient, 'validation') for i in validation),
    }


@pytest.mark.parametrize(
  ('name', 'turn', 'train', 'validation'),
  (
    ('lidc_nodules/phantom', 0, {0, 1, 2}, {3}),
    ('lidc_nodules/all', 1, {1, 2, 3}, {4}),
    ('lidc_nodules/paper?slices=all', 4, {4, 0, 1}, {2}),
    # The nodules of a patient may be in any fold.
    ('lidc_nodules/phantom?split_by=nodule', 0, {0, 1, 2, 3, 4}, set()),
  ),
)
def test_a_run_without_a_list_has_seen_its_folds(name, turn, train, validation):
  from tfds_lidc.nodules import selection

  assert lidc.seen_by_fold(name, turn) == {
    (n.nodule_id, n.patient_id, use)
    for use, folds in (('train', train), ('validation', validation))
    for n in selection.clusters()
    if n.fold in folds
  }


def test_an_unknown_split_is_refused_with_the_known_ones(built):
  with pytest.raises(errors.InputError, match="'train'.*test"):
    lidc.load_split('lidc_nodules/paper', 'train')


@pytest.mark.parametrize('name', ('nonesuch/paper', 'lidc_nodules/nonesuch'))
def test_an_unknown_dataset_is_an_input_error(name, tmp_path):
  with pytest.raises(errors.InputError, match=name):
    lidc.builder(name, str(tmp_path))


def test_a_dataset_that_is_not_built_says_how_to_build_it(tmp_path):
  assert not lidc.is_built('lidc_nodules/paper', str(tmp_path))
  with pytest.raises(
    errors.InputError,
    match=f'tfds_lidc.build --config=paper .*--data_dir={tmp_path}',
  ):
    lidc.load_split('lidc_nodules/paper', 'train', data_dir=str(tmp_path))


def test_the_dataset_tells_whether_it_is_simulated(built):
  built.info.metadata['simulated'] = False
  assert not lidc.load_split('lidc_nodules/phantom', 'test').simulated


@pytest.mark.parametrize('name, simulated', (('phantom', True), ('all', False)))
def test_only_phantoms_are_simulated(name, simulated, tmp_path):
  name = f'lidc_nodules/{name}'
  assert lidc.is_simulated(name, str(tmp_path)) is simulated


def test_a_name_may_have_a_policy(tmp_path):
  name = 'lidc_nodules/phantom?split_by=nodule,slices=all'
  builder = lidc.builder(name, str(tmp_path))
  policy = builder.builder_config.policy
  assert (policy.split_by, policy.slices) == ('nodule', 'all')
  # Its folder does not depend on the order of the changes.
  assert builder.builder_config.name == 'phantom-slices_all-split_by_nodule'
  assert lidc.is_simulated(name, str(tmp_path))
  assert not lidc.is_built(name, str(tmp_path))
  assert '--config=paper --policy=slices=all ' in lidc.build_command(
    'lidc_nodules/paper?slices=all', ''
  )


def test_a_policy_may_contain_a_slash(tmp_path):
  name = 'lidc_nodules/paper?consensus=1/2'
  builder = lidc.builder(name, str(tmp_path))
  assert builder.builder_config.policy.consensus == (1, 2)
  command = lidc.build_command(name, '')
  assert ' --config=paper --policy=consensus=1/2 ' in command


@pytest.mark.parametrize('policy', ('slice=all', 'slices=some'))
def test_an_invalid_policy_is_an_input_error(policy, tmp_path):
  with pytest.raises(errors.InputError, match='slice'):
    lidc.builder(f'lidc_nodules/phantom?{policy}', str(tmp_path))


def test_concatenate_joins_every_field():
  parts = [_nodules([0, 1]), _nodules([-1])]
  whole = nodules_lib.concatenate(parts)
  np.testing.assert_array_equal(whole.label, [0, 1, -1])
  for name in ('image', 'mask', 'votes'):
    np.testing.assert_array_equal(
      getattr(whole, name),
      np.concatenate([getattr(part, name) for part in parts]),
    )
  assert list(whole.info['nodule_id']) == ['n0', 'n1', 'n0']
  assert whole.simulated
