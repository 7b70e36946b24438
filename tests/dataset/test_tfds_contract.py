"""Runs the test case that TFDS has for every dataset.

The test case reads builds with tf.data, so they are written as TFRecord here.
All of its checks run, including those of graph mode and of file system calls.
pytest counts `test_session` as skipped; that is not a test but a method of a
base class in TensorFlow.
"""

import dataclasses
import pathlib
import tempfile

import dicom_files
import faulty_dicom
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_lidc.lidc_nodules import building
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

pytest.importorskip('dill', reason='needs the extra test')
pytest.importorskip('tensorflow', reason='needs the extra tf')

pytestmark = pytest.mark.extra

# One patient of each split.
_PATIENTS = ('LIDC-IDRI-0003', 'LIDC-IDRI-0005', 'LIDC-IDRI-0021')


def _write_dummy_data(directory):
  """Writes SIMULATED CT of three patients: the slices for both configs."""
  ramp = np.arange(512, dtype=np.int16) + np.zeros((512, 1), np.int16)
  for nodule in sum(map(faulty_dicom.nodules_of, _PATIENTS), []):
    for config in ('all', 'paper'):
      for patch in patches.place_nodule(nodule, selection.POLICIES[config]):
        k = patch.slice_index
        dicom_files.write_slice(
          directory / nodule.patient_id / f'1-{k:03}.dcm',
          ramp + k,
          float(annotations.slice_positions(nodule.scan_id)[k]),
          nodule.series_uid,
          patient_id=nodule.patient_id,
          instance_number=k + 1,
        )


class _Contract:
  """Shared settings of the test cases; must precede TFDS's class as a base."""

  DATASET_CLASS = lidc_nodules_dataset_builder.Builder
  SKIP_TF1_GRAPH_MODE = False

  @classmethod
  def setUpClass(cls):
    directory = tempfile.TemporaryDirectory()
    cls.addClassCleanup(directory.cleanup)
    cls.EXAMPLE_DIR = directory.name
    _write_dummy_data(pathlib.Path(directory.name))
    super().setUpClass()

  def _make_builder(self, config=None):
    return self.dataset_class(
      data_dir=self.tmp_dir, config=config, file_format='tfrecord'
    )


class AllTest(_Contract, tfds.testing.DatasetBuilderTestCase):
  BUILDER_CONFIG_NAMES_TO_TEST = ['all']
  # Numbers of clusters of the three patients in nodules.csv.
  SPLITS = {'train': 4, 'validation': 3, 'test': 3}


class PaperTest(_Contract, tfds.testing.DatasetBuilderTestCase):
  BUILDER_CONFIG_NAMES_TO_TEST = ['paper']
  SPLITS = {'train': 2, 'validation': 1, 'test': 2}


class PhantomTest(_Contract, tfds.testing.DatasetBuilderTestCase):
  """Only the largest phantoms, as all of them take 15 seconds."""

  BUILDER_CONFIG_NAMES_TO_TEST = [
    lidc_nodules_dataset_builder.LidcConfig(
      name='phantom-large',
      policy=dataclasses.replace(
        selection.POLICIES['paper'],
        name='phantom-large',
        min_readers=4,
        min_diameter_mm=24.0,
      ),
      simulated=True,
    )
  ]
  SPLITS = {'train': 4, 'validation': 1, 'test': 1}


def test_phantoms_have_a_version_of_their_own(tmp_path):
  """A change of the phantoms must not force users to build CT again."""
  for config, policy, version in (
    ('paper', '', '2.0.0'),
    ('all', 'size=3-9', '2.0.0'),
    ('phantom', '', '3.0.0'),
    ('phantom', 'size=3-9', '3.0.0'),
  ):
    builder = lidc_nodules_dataset_builder.Builder(
      config=building.find_config(config, policy), data_dir=tmp_path
    )
    assert str(builder.version) == version
    assert version in builder.release_notes
