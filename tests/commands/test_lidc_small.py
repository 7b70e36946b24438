"""The config of the model that comes with the package."""

import project_configs
import pytest

_LIDC_SMALL = project_configs.load('lidc_small')


def test_real_nodules_come_after_phantoms():
  phantoms, nodules = map(_LIDC_SMALL.get_config, _LIDC_SMALL.VARIANTS)
  assert phantoms.dataset.name == 'lidc_nodules/phantom'
  assert nodules.dataset.name == 'lidc_nodules/paper'
  # Without real CT it must stop, not train on phantoms again.
  assert nodules.dataset.fallback == ''
  # The default directory of the run on phantoms.
  assert nodules.start_from == f'runs/{phantoms.variant}'
  for group in ('seg_net', 'image_size', 'window'):
    assert nodules[group] == phantoms[group]


def test_a_variant_is_required():
  with pytest.raises(ValueError, match='phantoms, nodules'):
    _LIDC_SMALL.get_config()
