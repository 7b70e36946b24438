"""Which runs can answer together, and what they have seen."""

import made_run
import pytest

from mtnet_jax.inference import members
from mtnet_jax.system import errors


@pytest.fixture(name='write')
def _write(tmp_path):
  def write(name, **changes):
    config = made_run.config_of()
    with config.unlocked():
      config.update_from_flattened_dict(changes)
    return str(made_run.write_results(tmp_path / name, config))

  return write


def test_runs_may_differ_in_seed_and_fold(write):
  paths = [
    write('a'),
    write('b', seed=7),
    write('c', **{'dataset.rotate_folds': 2, 'seg_net.exit_width': 8}),
  ]
  runs = members.read(paths)
  assert members.rotations(runs) == [0, 0, 2]
  assert members.described(runs)[1] == {
    'workdir': paths[1],
    'seed': 7,
    'rotate_folds': 0,
  }


@pytest.mark.parametrize(
  'changes, says',
  (
    ({'strategy': 'cam'}, 'its strategy is cam, not mtnet'),
    ({'stages': ('coarse',)}, r"its stages is \('coarse',\), not"),
    ({'image_size': 32}, 'its size is 32, not 64'),
    ({'window': (-900.0, 400.0)}, r'its window is \(-900.0, 400.0\), not'),
    ({'coarse_mask': 'soft'}, 'its coarse_mask is soft, not hard'),
    (
      {'dataset.name': 'lidc_nodules/paper'},
      'its dataset is lidc_nodules/paper, not lidc_nodules/phantom',
    ),
  ),
)
def test_runs_of_another_method_are_refused(write, changes, says):
  first, other = write('first'), write('other', **changes)
  with pytest.raises(
    errors.InputError, match=f'{other} cannot be averaged with {first}: {says}'
  ):
    members.read([first, other])


def test_the_same_run_is_refused(write):
  first, other = write('a'), write('b')
  with pytest.raises(errors.InputError, match='is given twice'):
    members.read([first, other, f'{first}/.'])


def test_the_caution_says_who_keeps_what(write):
  first, seed = write('a'), write('b', seed=1)
  fold = write('c', **{'dataset.rotate_folds': 1})
  said = members.caution(members.read([first]), 3)
  assert said.startswith('CAUTION: 3 of these nodules belong to patients used')
  assert 'of the run' in said and '(all folds except 4)' in said
  assert said.endswith('the metrics are too optimistic.')
  said = members.caution(members.read([first, seed]), 3)
  assert 'of at least one of the runs (all folds except 4)' in said
  said = members.caution(members.read([first, fold]), 3)
  assert '(the test folds are 4, 0: none in common)' in said
