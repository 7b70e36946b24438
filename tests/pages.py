"""Writes the report page of a made-up run, and parses it."""

from html import parser

import numpy as np
import pytest

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.reports import examples
from mtnet_jax.reports import figures
from mtnet_jax.reports import page as page_lib

PATCH = 16
DIAMETER_MODEL = {'slope': 1.0, 'intercept': -10.0}


def make_nodules(labels, patients, *, simulated, first_id='n0'):
  """Returns nodules: 4 x 4 squares with diameters of 6, 7, 8, ... mm."""
  num_nodules = len(labels)
  mask = np.zeros((num_nodules, PATCH, PATCH), np.uint8)
  mask[:, 4:8, 4:8] = 1
  image = np.where(mask, 40, -850).astype(np.int16)
  names = [first_id, *(f'n{i}' for i in range(1, num_nodules))]
  return nodules_lib.Nodules(
    image=image,
    mask=mask,
    votes=4 * mask,
    label=np.asarray(labels, np.int32),
    info={
      'nodule_id': np.asarray(names),
      'patient_id': np.asarray(patients),
      'diameter_mm': 6.0 + np.arange(num_nodules),
    },
    simulated=simulated,
  )


def make_outputs(nodules):
  """Returns outputs; coarse marks the upper half of each square, fine all."""
  coarse = nodules.mask * np.float32(0.9)
  coarse[:, 6:] = 0
  num_nodules = len(nodules)
  return {
    'coarse': coarse,
    'fine': nodules.mask * np.float32(0.5),  # Equal to the threshold.
    'class': np.linspace(0.1, 0.9, num_nodules, dtype=np.float32),
    'cam': np.zeros((num_nodules, PATCH, PATCH), np.float32),
  }


def make_history(stage, metric):
  """Returns three epochs, of which the second is kept."""
  values = (0.5, 0.625, 0.25)
  return [
    {
      'stage': stage,
      'epoch': epoch,
      'step': 8 * epoch,
      'loss': 1 / epoch,
      metric: value,
      'best': epoch < 3,
      'seconds': 30.5,
    }
    for epoch, value in enumerate(values, 1)
  ]


def write(
  directory,
  *,
  labels=(0, 0, 0, 1, 1, 1, -1),
  patients='aabbcde',
  simulated=True,
  first_id='n0',
  dataset='lidc_nodules/phantom',
  histories=None,
  without=(),
  strategy='mtnet',
  coarse_mask='hard',
  comparisons=None,
  commands=None,
  render=False,
):
  """Writes a report and returns its page.

  Without `render`, the figures are made, but not drawn.
  """
  nodules = make_nodules(
    labels, list(patients), simulated=simulated, first_id=first_id
  )
  outputs = make_outputs(nodules)
  outputs = {key: x for key, x in outputs.items() if key not in without}
  records = records_lib.make_records(nodules, outputs)
  results = {
    'dataset': dataset,
    'strategy': strategy,
    'coarse_mask': coarse_mask,
    'cohort': {'test': nodules_lib.count(nodules)},
    'simulated': simulated,
    'seed': 7,
    'variant': 'demo',
    'versions': {'mtnet_jax': '9.8.7', 'numpy': '2.0.0'},
    'hardware': {'platform': 'cpu', 'kind': 'Slow One', 'devices': 2},
    'diameter_only_model': DIAMETER_MODEL,
    'test': scores.summarise(records, diameter_model=DIAMETER_MODEL, seed=0),
  }
  if histories is None:
    histories = {
      'coarse': make_history('coarse', 'val_jaccard'),
      'class': make_history('class', 'val_auc'),
      'fine': make_history('fine', 'val_jaccard'),
    }
  with pytest.MonkeyPatch.context() as patch:
    if not render:
      patch.setattr(figures, 'save', lambda figure, path: path.touch())
    page_lib.write(
      directory,
      results=results,
      records=records,
      histories=histories,
      examples=examples.pick(records, nodules, outputs),
      comparisons=comparisons,
      commands=commands,
    )
  return Page(directory / 'index.html')


class Page(parser.HTMLParser):
  """What a reader of a page sees: rows of tables, images, links, text."""

  def __init__(self, path):
    super().__init__()
    self.html = path.read_text(encoding='utf-8')
    self.rows, self.images, self.links, self.text = [], [], [], ''
    self.tags, self.ids, self.in_cell = set(), set(), False
    self.titles, self.in_caption = [], False
    self.feed(self.html)
    self.text = ' '.join(self.text.split())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    self.ids.add(attrs.get('id'))
    if tag == 'caption':
      self.titles.append('')
      self.in_caption = True
    if tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')
      self.in_cell = True
    elif tag == 'img':
      self.images.append(attrs['src'])
      assert attrs['alt']
    elif tag == 'a':
      self.links.append(attrs['href'])

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self.in_cell = False
      self.rows[-1][-1] = ' '.join(self.rows[-1][-1].split())
    elif tag == 'caption':
      self.in_caption = False
      self.titles[-1] = ' '.join(self.titles[-1].split())

  def handle_data(self, data):
    self.text += data
    if self.in_caption:
      self.titles[-1] += data
    if self.in_cell:
      self.rows[-1][-1] += data

  def row(self, title, which=0):
    """Returns the cells of one of the rows with a title."""
    return [row[1:] for row in self.rows if row[0] == title][which]
