"""What names say of datasets, against the policies that TFDS finds by them."""

import pytest

from mtnet_jax.data import lidc


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
  assert lidc.base_and_changes(name) == (base, changes)


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
  # Its build can be read by its own name, too.
  for known_as in (name, f'lidc_nodules/{config.name}'):
    text = lidc.how_split(known_as)
    assert text.startswith(f'by {config.policy.split_by}')
    assert ('several' in text) == (config.policy.split_by == 'nodule')
