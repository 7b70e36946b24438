"""Names of datasets describe the policies that TFDS finds by them."""

import os
import shlex

import pytest

from mtnet_jax.data import dataset_names
from mtnet_jax.data import lidc
from mtnet_jax.system import errors


@pytest.mark.parametrize(
  'name, base, changes',
  [
    ('lidc_nodules/paper', 'paper', ''),
    ('lidc_nodules/paper?consensus=1/2', 'paper', 'consensus=1/2'),
    (
      'lidc_nodules/all?readers=3-4,slices=all',
      'all',
      'readers=3-4,slices=all',
    ),
    (
      'lidc_nodules/paper-readers_3_to_4-slices_all',
      'paper',
      'readers_3_to_4-slices_all',
    ),
  ],
)
def test_base_and_changes(name, base, changes):
  assert dataset_names.base_and_changes(name) == (base, changes)


@pytest.mark.parametrize(
  'policy',
  (
    '',
    '?slices=all',
    '?split_by=patient',
    '?split_by=nodule',
    '?split_by=nodule,slices=all',
    '?readers=4,slices=all,split_by=nodule',
  ),
)
def test_how_split_is_the_policys(policy, tmp_path):
  name = f'lidc_nodules/phantom{policy}'
  config = lidc.builder(name, str(tmp_path)).builder_config
  # A built dataset can also be opened by the name of its folder.
  for known_as in (name, f'lidc_nodules/{config.name}'):
    text = dataset_names.how_split(known_as)
    assert text.startswith(f'by {config.policy.split_by}')
    assert ('several' in text) == (config.policy.split_by == 'nodule')


@pytest.mark.parametrize(
  ('folds', 'begins'), (((0, 0), 'by patient'), ((0, 4), 'by nodule (a pati'))
)
def test_the_name_tells_that_folds_are_custom(folds, begins, tmp_path):
  path = tmp_path / 'folds.csv'
  rows = (f'LIDC-IDRI-0003_14_{k},{fold}' for k, fold in enumerate(folds, 3))
  path.write_text('\n'.join(('nodule_id,fold', *rows)))
  name = f'lidc_nodules/phantom?nodules={path},folds={path}'
  text = dataset_names.how_split(lidc.lasting_name(name))
  assert text.startswith(begins) and text.endswith('folds of its own')
  for known_as in (name, lidc.lasting_name(name)):
    assert dataset_names.base_and_changes(known_as)[0] == 'phantom'
  assert lidc.lasting_name('lidc_nodules/all?readers=3') == (
    'lidc_nodules/all?readers=3'
  )


@pytest.mark.parametrize(
  ('name', 'data_dir', 'flags'),
  (
    (
      'lidc_nodules/paper?slices=$(a)',
      '/x; y #',
      ['--config=paper', '--policy=slices=$(a)'],
    ),
    ("lidc_nodules/a'b", '`x`', ["--config=a'b"]),
    ('lidc_nodules/all-x&y', '~/a b', ['--config=all', '--policy=...']),
  ),
)
def test_a_command_to_copy_is_quoted(name, data_dir, flags):
  assert shlex.split(lidc.build_command(name, data_dir)) == [
    *('python', '-m', 'tfds_lidc.build', *flags),
    *('--lidc_dir=DIR', f'--data_dir={data_dir}'),
  ]


@pytest.mark.parametrize(
  'name',
  (
    'lidc_nodules/' + 'a' * 4000,
    'a' * 4000,
    'lidc_nodules/' + 'a' * 4000 + '?slices=all',
    'lidc_nodules/' + 'a' * 4000 + '?nodules=b.csv',
    'lidc_nodules/phantom?' + 'a' * 4000,
    'lidc_nodules/phantom?slices=' + 'a' * 4000,
    'lidc_nodules/\x1b]0;x\x07',
    'lidc_nodules/phantom\n',
  ),
)
def test_an_invalid_name_gives_a_short_error(name, tmp_path):
  readers = [lambda: lidc.builder(name, str(tmp_path))]
  if 'nodules=' in name:
    readers.append(lambda: lidc.lasting_name(name))
  for read in readers:
    with pytest.raises(errors.InputError) as error:
      read()
    assert len(str(error.value)) < 900 and str(error.value).isprintable()


@pytest.mark.parametrize(
  ('policy', 'expected'),
  (
    ('nodules={}', 'by patient'),
    ('folds={}', 'in folds of its own'),
    ('slices=all, folds={}', 'in folds of its own'),
    (
      'split_by=nodule,nodules={}',
      'by nodule (a patient can be in several splits)',
    ),
  ),
)
def test_the_name_alone_tells_the_split(policy, expected, tmp_path):
  """The name's file is not opened: opening a pipe would block for ever."""
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  name = f'lidc_nodules/phantom?{policy.format(pipe)}'
  assert dataset_names.how_split(name) == expected
  # With unknown folds, every nodule may have been in the training split.
  if expected != dataset_names.BY_PATIENT:
    assert {row[2] for row in lidc.seen_by_fold(name)} == {'train'}
