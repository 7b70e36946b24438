"""Tests that the examples show contours of real nodules, and no CT pixels."""

import numpy as np
import pytest

from benchmarks.results import examples
from mtnet_jax.evaluation import finished_run as finished_run_lib


@pytest.fixture(scope='module')
def found(finished_run, tmp_path_factory):
  """Examples of a finished run on phantoms, in the folders of `sources`."""
  runs = tmp_path_factory.mktemp('runs')
  folder = runs / 'tables-small' / 'mtnet'
  folder.mkdir(parents=True)
  directory, _ = finished_run
  (folder / 'fold4').symlink_to(directory)
  records = finished_run_lib.read(directory).records
  return examples.collect(records, runs)


def test_examples_use_the_networks_of_the_tests(found):
  """The run is on phantoms, so its test images are the drawn phantoms."""
  assert [example.rank for example in found] == (
    ['best'] * 2 + ['median'] * 2 + ['worst'] * 2
  )
  for example in found:
    for name in ('coarse', 'fine'):
      mask = example.masks['CT'][name]
      np.testing.assert_array_equal(mask, example.masks['SIMULATED'][name])
      overlap = 2 * (mask & example.truth).sum()
      dice = overlap / (mask.sum() + example.truth.sum())
      assert dice == pytest.approx(example.record[f'{name}_dice'], abs=1e-5)
    assert example.malignancy['CT'] == pytest.approx(
      example.record['malignancy_probability'], abs=1e-5
    )


def test_no_ct_pixel_is_drawn(found):
  """It compares the arrays of the pictures."""
  figure = examples.draw(found)
  axes = np.reshape(figure.axes, (4, len(found)))
  for column, example in zip(axes.T, found, strict=True):
    outlines, activation, phantom, phantom_activation = column
    assert not outlines.images
    (drawn,) = activation.images
    np.testing.assert_array_equal(drawn.get_array(), example.maps['CT'])
    for axis in (phantom, phantom_activation):
      np.testing.assert_array_equal(axis.images[0].get_array(), example.phantom)
  labels = [axis.get_ylabel() for axis in axes[:, 0]]
  assert ['SIMULATED' in label for label in labels] == [False] * 2 + [True] * 2
  simulated = examples.draw(found, simulated=True)
  first = np.reshape(simulated.axes, (4, len(found)))[:, 0]
  assert all('SIMULATED' in axis.get_ylabel() for axis in first)
