"""The statements of the dataset's card are true."""

import pathlib
import re
import shlex
import sys

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_metadata

from tfds_lidc import cohort
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.nodules import annotations

_CARD = pathlib.Path(lidc_nodules_dataset_builder.__file__).with_name(
  'README.md'
)


def _rows():
  """Rows of the table of policies: (options, counts, reported counts)."""
  rows = re.findall(
    r'^\|[^|]+\| `(--config=[^`]+)` \|((?: \d+ \|){4})([^|]*)\|$',
    _CARD.read_text(),
    re.MULTILINE,
  )
  return [
    (options, [int(n) for n in re.findall(r'\d+', counts)], reported.strip())
    for options, counts, reported in rows
  ]


def test_every_row_of_the_table_is_parsed():
  assert len(_rows()) == _CARD.read_text().count('| `--config=') == 9


@pytest.mark.parametrize('options, counts', [row[:2] for row in _rows()])
def test_counts_are_those_of_the_command(options, counts, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['cohort', *shlex.split(options)])
  cohort.main()
  header, *lines = capsys.readouterr().out.splitlines()[2:]
  columns = header.split()
  config = re.match(r'--config=(\w+)', options)[1]
  (line,) = (
    line.split()
    for line in lines
    # Without --policy the command prints every policy.
    if len(lines) == 1 or line.split()[0] == config
  )
  printed = dict(zip(columns, line, strict=True))
  names = ('benign', 'malignant', 'open', 'nodules')
  assert [int(printed[name]) for name in names] == counts


def test_every_cited_source_is_listed():
  card = _CARD.read_text()
  cited = {n for row in _rows() for n in re.findall(r'\[(\d)\]', row[2])}
  listed = re.findall(r'^(\d)\. .*?(?:doi:10\.|arXiv:)', card, re.M | re.S)
  assert cited == set(listed) == set('12345')


def test_numbers_outside_the_table():
  ((scans,),) = annotations._query(
    'SELECT COUNT(*) FROM scans WHERE slice_thickness <= 2.5'
  )
  assert scans == 897 and 'against 897 with slices' in ' '.join(
    _CARD.read_text().split()
  )
  # Table 3 of the paper: accuracy 91.9, sensitivity 81.4, specificity 95.0.
  assert round(100 * (95.0 - 91.9) / (95.0 - 81.4)) == 23


def test_metadata_of_a_build():
  info = tfds.builder('lidc_nodules/paper').info
  assert "the label is the radiologists' opinion, not pathology" in ' '.join(
    info.description.split()
  )
  for key in ('armato2011lidc', 'lidcidri2015', 'pylidc', 'tang2024mtnet'):
    assert key in info.citation
  assert 'CC BY 3.0' in info.redistribution_info.license
  assert 'cancerimagingarchive.net' in info.homepage


def test_tags_are_valid_in_tfds():
  metadata = lidc_nodules_dataset_builder.Builder.get_metadata()
  assert 'ml.task.image-segmentation' in metadata.tags
  assert not set(metadata.tags) - set(dataset_metadata.valid_tags())
