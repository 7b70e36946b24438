"""Draws examples as in the paper's Figure 6: masks and activation maps.

No pixel of the CT is drawn, only contours of readers and networks. Below them
the figure shows the same networks on a phantom of the same nodule, which has
the same contour but SIMULATED attenuation.
"""

import functools
import pathlib
from typing import NamedTuple

from matplotlib import figure as mpl_figure
import numpy as np

from benchmarks.results import sources
import mtnet_jax
from mtnet_jax import metrics
from mtnet_jax.data import lidc
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.reports import examples
from mtnet_jax.reports import figures
from mtnet_jax.reports import overlays
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch as phantom_patch

_WINDOW_HU = (-1000, 400)
_READERS = '0.45'
_COARSE, _FINE = figures.ORANGE, figures.BLUE
_CREDIT = (
  'Outlines: LIDC-IDRI, The Cancer Imaging Archive,'
  ' doi.org/10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0'
)


class Example(NamedTuple):
  """A nodule of the figure, in the CT or SIMULATED.

  Attributes:
    rank: 'best', 'median' or 'worst' by the fine mask's Dice index in the CT.
    record: its row of the run's records.csv.
    truth: (P, P) bool, the readers' consensus mask.
    phantom: (P, P) HU, SIMULATED.
    masks: 'CT' and 'SIMULATED' -> 'coarse' and 'fine' -> (P, P) bool.
    maps: 'CT' and 'SIMULATED' -> (P, P) activation map.
    malignancy: 'CT' and 'SIMULATED' -> probability.
  """

  rank: str
  record: dict
  truth: np.ndarray
  phantom: np.ndarray
  masks: dict
  maps: dict
  malignancy: dict


def collect(records, runs):
  """Predicts the best, median and worst nodules by the networks tested on them.

  Args:
    records: records of MT-Net over all folds.
    runs: the folder that the commands of `sources` wrote.

  Returns:
    A list of `Example`s.
  """
  _, values = examples.order_by(records)

  # Cached, because several examples may be of one fold.
  @functools.cache
  def model_and_test_split(fold):
    folder = f'{sources.TABLES.name}-small/mtnet/fold{fold}'
    model = mtnet_jax.load(str(pathlib.Path(runs) / folder))
    return model, lidc.load_splits(model.config.dataset)['test']

  found = []
  for rank, index in examples.choose(values):
    record = records[index]
    model, test = model_and_test_split(record['fold'])
    (at,) = np.flatnonzero(test.info['nodule_id'] == record['nodule_id'])
    phantom, spacing_mm = _phantom_of(record['nodule_id'])
    predicted = model.predict(
      np.stack([test.image[at], phantom]), np.full(2, spacing_mm)
    )
    kinds = ('CT', 'SIMULATED')
    found.append(
      Example(
        rank=rank,
        record=record,
        truth=test.mask[at] > 0,
        phantom=phantom,
        masks={
          kind: {
            'coarse': predicted.coarse_mask[i],
            'fine': predicted.mask[i],
          }
          for i, kind in enumerate(kinds)
        },
        maps={kind: predicted.cam[i] for i, kind in enumerate(kinds)},
        malignancy={
          kind: float(predicted.malignancy[i]) for i, kind in enumerate(kinds)
        },
      )
    )
  return found


def _phantom_of(nodule_id):
  """Returns the (64, 64) HU of a nodule's phantom and its spacing in mm."""
  (nodule,) = (n for n in selection.clusters() if n.nodule_id == nodule_id)
  (patch,) = patches.place_nodule(nodule, selection.POLICIES['paper'])
  return phantom_patch.simulate(nodule, patch), nodule.pixel_spacing_mm


def draw(found, *, simulated=False):
  """Draws the figure, with a column per example.

  Args:
    found: list of `Example`s, from `collect`.
    simulated: whether the CT of the runs was SIMULATED, too.
  """
  side = 1.75
  figure = mpl_figure.Figure(
    (side * len(found) + 0.5, 4 * side + 1.6), layout='constrained'
  )
  figure.suptitle(
    'Masks and activation maps as in Figure 6: readers (grey), Coarse Seg-net'
    ' (orange), Fine Seg-net (blue)',
    fontsize=10,
  )
  axes = figure.subplots(4, len(found), squeeze=False)
  first = 'SIMULATED' if simulated else 'CT, not drawn'
  names = (
    f'{first}:\noutlines',
    f'{first}:\nactivation',
    'SIMULATED phantom:\noutlines',
    'SIMULATED phantom:\nactivation',
  )
  for axis, name in zip(axes[:, 0], names, strict=True):
    axis.set_ylabel(name, fontsize=8)
  for column, example in zip(axes.T, found, strict=True):
    record = example.record
    column[0].set_title(
      f'{example.rank}: {record["diameter_mm"]:.0f} mm,'
      f' {metrics.LABELS[record["label"]]}',
      fontsize=9,
    )
    for kind, (outlines, activation) in (
      ('CT', column[:2]),
      ('SIMULATED', column[2:]),
    ):
      _draw(outlines, activation, example, kind)
  figure.supxlabel(_CREDIT, fontsize=7.5, color='0.35')
  return figure


def _draw(outlines, activation, example, kind):
  """Draws the two pictures of a nodule, in the CT or SIMULATED."""
  masks, truth = example.masks[kind], example.truth
  for axis in (outlines, activation):
    axis.set(xticks=[], yticks=[], aspect='equal')
    if kind == 'SIMULATED':
      low, high = _WINDOW_HU
      axis.imshow(example.phantom, cmap='gray', vmin=low, vmax=high)
  overlays.outline(outlines, truth, _READERS, fill=0.35 * (kind == 'CT'))
  overlays.outline(outlines, masks['coarse'], _COARSE)
  overlays.outline(outlines, masks['fine'], _FINE)
  overlays.activation(activation, example.maps[kind])
  overlays.outline(activation, truth, _READERS)
  dice = metrics.segmentation_metrics(
    np.stack([masks['coarse'], masks['fine']]), np.stack([truth, truth])
  )['dice']
  outlines.set_xlabel(
    f'Dice {dice[0]:.2f} coarse, {dice[1]:.2f} fine', fontsize=7
  )
  activation.set_xlabel(
    f'malignancy {example.malignancy[kind]:.2f}', fontsize=7
  )


def write(records, runs, folder):
  """Writes FOLDER/examples.png."""
  simulated = records_lib.column(records, 'simulated').any()
  figure = draw(collect(records, runs), simulated=bool(simulated))
  figures.save(figure, pathlib.Path(folder) / 'examples.png')
