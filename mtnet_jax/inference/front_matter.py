"""Makes a bundle's README.md: metadata for the Hugging Face Hub, then the card.

The Hub reads YAML between two lines of `---`: the licence, tags, and results
that it shows and compares
(https://huggingface.co/docs/hub/model-cards#model-card-metadata).
"""

from collections.abc import Iterator
import json
import math
from typing import Any

import ml_collections

from mtnet_jax.inference import card
from mtnet_jax.reports import tables
from mtnet_jax.storage import bundle_files
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
# Metrics that have another name on the Hub.
_TYPES = {'auc': 'roc_auc', 'sensitivity': 'recall'}


def readme(bundle: bundle_files.Bundle) -> str:
  """Returns the README.md of a bundle."""
  described = bundle.name, bundle.config, bundle.metrics
  return front_matter(*described) + card.model_card(*described, bundle.seen)


def front_matter(
  name: str, config: ml_collections.ConfigDict, metrics: dict[str, Any]
) -> str:
  """Returns the metadata for the Hub, with both lines of `---` and a blank one.

  Args:
    name: name of the model.
    config: config of its run.
    metrics: metrics.json of its run.
  """
  simulated = metrics['simulated']
  tree: dict[str, Any] = {
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
  """Yields an entry of `model-index` per task, with the card's results."""
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
  """Yields the defined estimates of a network, in per cent as in the tables."""
  for column in columns:
    value = found[column.key]['value']
    if value is not None and math.isfinite(value):
      yield {
        'type': _TYPES.get(column.key, column.key),
        'name': f'{network} {column.title} (%)',
        'value': 100.0 * value,
      }


def _lines(tree: dict[str, Any] | list[Any]) -> Iterator[str]:
  """Yields a dict or list as lines of YAML, one per scalar."""
  if isinstance(tree, dict):
    marked = [(f'{key}:', value) for key, value in tree.items()]
  else:
    marked = [('-', value) for value in tree]
  for mark, value in marked:
    if not isinstance(value, (dict, list)):
      yield f'{mark} {_scalar(value)}'
      continue
    below = [f'  {line}' for line in _lines(value)]
    if mark == '-':  # The first line follows the dash.
      yield f'-{below[0][1:]}'
      yield from below[1:]
    else:
      yield mark
      yield from below


def _scalar(value):
  """Formats a number as in the tables, or quotes and escapes a string."""
  if isinstance(value, float):
    return f'{value:.1f}'
  # JSON strings are YAML if the characters that YAML forbids are escaped.
  quoted = json.dumps(value, ensure_ascii=False)
  return ''.join(x if x.isprintable() else f'\\U{ord(x):08X}' for x in quoted)
