"""A bundle's README.md: the card below what the Hugging Face Hub reads of it.

The Hub reads YAML between two lines of `---`: the licence, tags, and results
that it shows and compares
(https://huggingface.co/docs/hub/model-cards#model-card-metadata).
"""

import json
import math

from mtnet_jax.inference import card
from mtnet_jax.reports import tables
from mtnet_jax.storage import texts

_DATASET = 'LIDC-IDRI'
_TAGS = (
  'jax',
  'flax',
  'medical-imaging',
  'computed-tomography',
  'pulmonary-nodules',
  'segmentation',
  'classification',
)
# Metrics that the Hub has under a name of its own.
_TYPES = {'auc': 'roc_auc', 'sensitivity': 'recall'}


def readme(bundle):
  """README.md of a `bundle_files.Bundle`, as it is written."""
  whole = bundle.name, bundle.config, bundle.metrics
  return front_matter(*whole) + card.model_card(*whole, bundle.seen)


def front_matter(name, config, metrics):
  """What the Hub reads, with both lines of `---` and an empty one.

  Args:
    name: of the model.
    config: the run's.
    metrics: the run's metrics.json.
  """
  simulated = metrics['simulated']
  tree = {
    'license': metrics.get('license', texts.UNKNOWN_LICENSE),
    'library_name': 'mtnet_jax',
    'pipeline_tag': 'image-segmentation',
    'tags': [*_TAGS, *(['simulated'] if simulated else [])],
    'datasets': [_DATASET],
  }
  results = list(_results(config.dataset.name, metrics['test'], simulated))
  if results:
    tree['model-index'] = [{'name': name, 'results': results}]
  return '\n'.join(['---', *_lines(tree), '---', '', ''])


def _results(dataset, summary, simulated):
  """An entry of the `model-index` per task: what the card's tables show."""
  names = tables.network_names()
  for task, title, networks, columns in (
    (
      'image-segmentation',
      'Segmentation of pulmonary nodules',
      [(names[x], summary['segmentation'].get(x)) for x in ('coarse', 'fine')],
      tables.SEGMENTATION,
    ),
    (
      'image-classification',
      'Benign or malignant, as radiologists suspect',
      [(names['class'], summary.get('classification'))],
      tables.CLASSIFICATION,
    ),
  ):
    shown = [
      metric
      for network, found in networks
      if found is not None
      for metric in _metrics(network, found, columns)
    ]
    if shown:
      yield {
        'task': {'type': task, 'name': title},
        'dataset': {
          'type': _DATASET,
          'name': f'{"SIMULATED CT of " if simulated else ""}{_DATASET}'
          f' nodules, {dataset}',
          'config': dataset,
          'split': 'test',
        },
        'metrics': shown,
      }


def _metrics(network, found, columns):
  """The estimates of a network that are defined, in per cent as in tables."""
  for column in columns:
    value = found[column.key]['value']
    if value is not None and math.isfinite(value):
      yield {
        'type': _TYPES.get(column.key, column.key),
        'name': f'{network} {column.title} (%)',
        'value': 100.0 * value,
      }


def _lines(tree):
  """Lines of YAML of a dict or a list, in which each scalar has its own."""
  if isinstance(tree, dict):
    marked = [(f'{key}:', value) for key, value in tree.items()]
  else:
    marked = [('-', value) for value in tree]
  for mark, value in marked:
    if not isinstance(value, (dict, list)):
      yield f'{mark} {_scalar(value)}'
      continue
    below = [f'  {line}' for line in _lines(value)]
    if mark == '-':  # Its first line follows the dash.
      yield f'-{below[0][1:]}'
      yield from below[1:]
    else:
      yield mark
      yield from below


def _scalar(value):
  """A number as tables show it; or a text, which nothing in it can end."""
  if isinstance(value, float):
    return f'{value:.1f}'
  # A text of JSON is one of YAML, if none of its characters is forbidden there.
  quoted = json.dumps(value, ensure_ascii=False)
  return ''.join(x if x.isprintable() else f'\\U{ord(x):08X}' for x in quoted)
