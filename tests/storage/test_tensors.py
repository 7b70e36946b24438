"""Headers of safetensors files, which anyone may have written."""

import json

import jax
import numpy as np
import project_configs
import pytest

from mtnet_jax.models import nets
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors

_ONE = {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}


def _write(path, listed, size=4):
  text = listed if isinstance(listed, bytes) else json.dumps(listed).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + bytes(size))
  return path


@pytest.mark.parametrize(
  'name',
  [
    '',
    '/',
    'a/',
    'a//b',
    'a b',
    '\x1b]0;title\x07',
    'ä',
    'x' * 301,
    'x' * 5_000_000,
    '/'.join('a' * 21),
    # Deeper than Python can recurse.
    '/'.join('a' * 100_000),
  ],
  ids=len,
)
def test_names_are_those_of_variables(tmp_path, name):
  path = _write(tmp_path / 'w', {name: _ONE})
  with pytest.raises(
    errors.InputError, match='an invalid name of .* letters'
  ) as e:
    tensors.header(path)
  assert len(str(e.value)) < 500


@pytest.mark.parametrize('name', ['x' * 300, '/'.join('a' * 20), 'A_.-/9'])
def test_names_at_their_bounds_are_read(tmp_path, name):
  found = tensors.header(_write(tmp_path / 'w', {name: _ONE}))
  assert dict(tensors.flat(found)) == {name: jax.ShapeDtypeStruct((1,), 'f4')}


@pytest.mark.parametrize(
  'shape',
  [
    [1] * 9,
    [1] * 3_000_000,
    [1 << 31],
    [0, 1 << 31],
    [-1, -1],
    [1.0],
    [True],
    ['1'],
    '1',
    {'1': 1},
    None,
    1,
  ],
)
def test_shapes_are_those_of_variables(tmp_path, shape):
  path = _write(tmp_path / 'w', {'a': {**_ONE, 'shape': shape}})
  with pytest.raises(errors.InputError, match='an invalid shape') as e:
    tensors.header(path)
  assert len(str(e.value)) < 500


def test_sides_of_thousands_of_digits_are_not_multiplied(tmp_path, monkeypatch):
  """Multiplying twenty megabytes of them would take hours."""
  side = '9' * 4300
  shape = ','.join([side] * 5)
  text = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'

  def prod(values):
    raise AssertionError('multiplied')

  monkeypatch.setattr(tensors.math, 'prod', prod)
  with pytest.raises(errors.InputError, match='an invalid shape'):
    tensors.header(_write(tmp_path / 'w', text.encode()))


@pytest.mark.parametrize(
  'names', [('a', 'a/b'), ('a/b', 'a'), ('c/a', 'a', 'c')]
)
def test_an_array_cannot_have_the_name_of_a_group(tmp_path, names):
  listed = {
    name: {**_ONE, 'data_offsets': [4 * i, 4 * i + 4]}
    for i, name in enumerate(names)
  }
  path = _write(tmp_path / 'w', listed, size=4 * len(names))
  with pytest.raises(errors.InputError, match='name of a group'):
    tensors.header(path)


@pytest.mark.parametrize('strategy', ['finetune', 'feedback', 'single'])
def test_the_projects_own_variables_are_read(tmp_path, strategy):
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.strategy = strategy
  shapes = nets.variable_shapes(config)
  tree = {'0': jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)}
  tensors.write(tmp_path / 'w', tree)
  assert tensors.header(tmp_path / 'w') == {'0': shapes}
