"""Masks made from contours equal those of pylidc."""

import configparser
import subprocess
import sys

import numpy as np
import pytest

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

_LIDC_0003 = [f'LIDC-IDRI-0003_14_{k}' for k in (1, 2, 3, 4)]


def _nodule(nodule_id):
  return next(n for n in selection.clusters() if n.nodule_id == nodule_id)


def _with_holes(num):
  """Ids of the first `num` clusters in which a reader excluded a region."""
  holed = {
    annotation_id
    for (annotation_id,) in annotations._query(
      'SELECT DISTINCT annotation_id FROM contours WHERE NOT inclusion'
    )
  }
  ids = [
    n.nodule_id for n in selection.clusters() if holed & set(n.annotation_ids)
  ]
  assert len(ids) > num
  return ids[:num]


def _with_several_contours(num):
  """Ids of the first clusters with several contours of a reader on a slice."""
  several = {
    annotation_id
    for (annotation_id,) in annotations._query(
      'SELECT annotation_id FROM contours WHERE inclusion'
      ' GROUP BY annotation_id, image_z_position HAVING COUNT(*) > 1'
    )
  }
  ids = [
    n.nodule_id for n in selection.clusters() if several & set(n.annotation_ids)
  ]
  assert len(ids) > num
  return ids[:num]


@pytest.fixture(scope='module')
def pylidc():
  pylidc = annotations.import_pylidc()
  annotations.importlib.import_module('pylidc.utils')
  return pylidc


@pytest.mark.parametrize(
  'nodule_id', [*_LIDC_0003, *_with_holes(3), *_with_several_contours(3)]
)
def test_masks_equal_pylidcs_consensus(pylidc, nodule_id):
  nodule = _nodule(nodule_id)
  ours = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  theirs = [
    pylidc.query(pylidc.Annotation).filter_by(id=i).one()
    for i in nodule.annotation_ids
  ]
  votes = ours.masks.sum(axis=0)
  for clevel, consensus in ((0.5, (1, 2)), (2 / 3, (2, 3))):
    mask, bbox, masks = pylidc.utils.consensus(theirs, clevel=clevel)
    assert tuple(int(axis.start) for axis in bbox) == (
      *ours.origin[1:],
      ours.origin[0],
    )
    np.testing.assert_array_equal(ours.masks, np.transpose(masks, (0, 3, 1, 2)))
    np.testing.assert_array_equal(
      patches.consensus_mask(votes, len(theirs), consensus),
      np.transpose(mask, (2, 0, 1)),
    )
  assert votes.any()


def test_pixels_of_a_contour_are_outside_the_mask():
  mask = np.zeros((7, 7), bool)
  # As in LIDC, every pixel of the contour is a vertex.
  square = np.array(
    [
      (1, 1),
      (1, 2),
      (1, 3),
      (1, 4),
      (2, 4),
      (3, 4),
      (4, 4),
      (4, 3),
      (4, 2),
      (4, 1),
      (3, 1),
      (2, 1),
    ]
  )
  annotations.fill_contour(mask, square, is_inclusion=True)
  expected = np.zeros((7, 7), bool)
  expected[2:4, 2:4] = True
  np.testing.assert_array_equal(mask, expected)


def test_excluded_region_includes_the_pixels_of_its_contour():
  mask = np.ones((7, 7), bool)
  hole = np.array(
    [(2, 2), (2, 3), (2, 4), (3, 4), (4, 4), (4, 3), (4, 2), (3, 2)]
  )
  annotations.fill_contour(mask, hole, is_inclusion=False)
  expected = np.ones((7, 7), bool)
  expected[2:5, 2:5] = False
  np.testing.assert_array_equal(mask, expected)


def test_slice_0_is_lowest_z():
  z_mm = annotations.slice_positions(14)
  assert z_mm.shape == (140,)
  assert (np.diff(z_mm) > 0).all()
  assert len(annotations.scans()) == 1018


def test_masks_are_on_the_slices_of_their_contours():
  nodule = _nodule('LIDC-IDRI-0003_14_2')
  ids = ','.join(map(str, nodule.annotation_ids))
  contour_z = [
    z
    for (z,) in annotations._query(
      f'SELECT image_z_position FROM contours WHERE annotation_id IN ({ids})'
    )
  ]
  masks = annotations.reader_masks(14, nodule.annotation_ids)
  first = masks.origin[0]
  last = first + masks.masks.shape[1] - 1
  z_mm = annotations.slice_positions(14)
  assert (z_mm[first], z_mm[last]) == (min(contour_z), max(contour_z))


def test_shim_sets_only_what_is_missing(monkeypatch):
  monkeypatch.setattr(np, 'int', 'there already', raising=False)
  monkeypatch.delattr(np, 'float', raising=False)
  monkeypatch.delattr(configparser, 'SafeConfigParser', raising=False)
  annotations.install_shim()
  assert np.int == 'there already'
  assert np.float is float
  assert configparser.SafeConfigParser is configparser.ConfigParser


def test_pylidc_works_without_pkg_resources():
  code = """
import importlib.util, sys, warnings
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: (
    None if name == 'pkg_resources' else found(name, *args))
import tfds_lidc
importlib.util.find_spec = found
assert 'pylidc' not in sys.modules
warnings.simplefilter('ignore')
import pylidc
assert sys.modules['pkg_resources'].__spec__.loader is None
print(pylidc.query(pylidc.Scan).count())
"""
  done = subprocess.run(
    [sys.executable, '-c', code], check=True, text=True, capture_output=True
  )
  assert done.stdout.strip() == '1018'
