"""Compares SIMULATED patches with real ones in a figure and tables.

    python -m tfds_lidc.tools.compare_phantom --lidc_dir=DIR --out=FILE.png

The command compares the nodules of the config `paper` whose CT is in DIR with
their phantoms. It draws the contours of four nodules, their phantoms, and
histograms of all. It prints statistics of both (`hu_statistics`), and how well
a classifier separates them (`realism`), as Markdown. The figure shows no pixel
of CT.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import os

import numpy as np
import tqdm

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.ct import index as series_index
from tfds_lidc.nodules import selection
from tfds_lidc.scans import reader
from tfds_lidc.tools import hu_statistics
from tfds_lidc.tools import phantom_figure
from tfds_lidc.tools import realism

_MIN_CORE_PX = 20  # smaller cores are ignored
_MIN_PROGRESS = 50  # nodules; fewer need no progress bar


def sample(
  images: Sequence[np.ndarray],
  votes: Sequence[np.ndarray],
  nodules: Sequence[selection.Nodule],
) -> hu_statistics.Sample:
  """Describes patches.

  Args:
    images: n patches, (64, 64) HU each.
    votes: n patches, (64, 64), number of readers who marked the pixel.
    nodules: n nodules.

  Returns:
    The sample.
  """
  parts = [
    hu_statistics.regions(image, marks, nodule.num_readers)
    for image, marks, nodule in zip(images, votes, nodules, strict=True)
  ]
  kinds = np.array([hu_statistics.kind(n.ratings) or '' for n in nodules])
  levels = np.array(
    [
      hu_statistics.levels(image, part)
      if part.core.sum() >= _MIN_CORE_PX
      else np.full(len(hu_statistics.Levels._fields), np.nan)
      for image, part in zip(images, parts, strict=True)
    ]
  )

  def pixels(name: str, kind: str | None = None) -> np.ndarray:
    chosen = [
      image[getattr(part, name)]
      for image, part, k in zip(images, parts, kinds, strict=True)
      if kind in (None, k)
    ]
    return np.concatenate(chosen) if chosen else np.empty(0)

  hu = {
    'lung': pixels('lung'),
    'ring': pixels('ring'),
    'solid': pixels('core', 'solid'),
    'ground glass': pixels('core', 'ground glass'),
  }
  masks = np.array([part.nodule for part in parts])
  return hu_statistics.Sample(
    np.array(images), masks, kinds, levels, hu, np.array(votes)
  )


def real_and_phantom(
  lidc_dir: str | os.PathLike[str],
  *,
  config: str = 'paper',
  leave_out: Collection[str] = (),
) -> tuple[list[selection.Nodule], hu_statistics.Sample, hu_statistics.Sample]:
  """Reads the nodules of a folder of CT, and simulates them.

  Args:
    lidc_dir: folder with DICOM files of LIDC-IDRI.
    config: config of the dataset, which selects nodules.
    leave_out: ids of nodules to leave out.

  Returns:
    The nodules, their sample in CT, and their SIMULATED sample, starting with
    the largest nodule.

  Raises:
    InputError: the folder has no readable nodule of LIDC-IDRI, or is SIMULATED.
  """
  policy = selection.POLICIES[config]
  index = series_index.load(lidc_dir)
  series = index.series
  nodules = [
    n
    for n in selection.select(policy)
    if n.series_uid in series and n.nodule_id not in leave_out
  ]
  nodules = sorted(nodules, key=lambda n: -n.diameter_mm)
  if not nodules:
    raise errors.InputError(
      f'{lidc_dir} has no nodule of LIDC-IDRI; give a folder with a whole '
      'series, such as that of LIDC-IDRI-0003'
    )
  jobs = [
    reader.Job(
      (n,),
      policy,
      series[n.series_uid],
      index.faults_near(series[n.series_uid]),
    )
    for n in nodules
  ]
  for job in jobs:
    if job.series and job.series.simulated:
      raise errors.InputError(
        f'{job.series.folder} is SIMULATED, and would be shown as real; give '
        'a folder with CT of LIDC-IDRI'
      )
  nodules, real = _read(jobs)
  if not nodules:
    raise errors.InputError(
      f'{lidc_dir} has no readable slice with a nodule; `python -m'
      f' tfds_lidc.check --lidc_dir={lidc_dir}` says what is missing'
    )
  _, simulated = _read([reader.Job((n,), policy) for n in nodules])
  return nodules, real, simulated


def separability(
  nodules: Sequence[selection.Nodule],
  real: hu_statistics.Sample,
  simulated: hu_statistics.Sample,
) -> realism.Separability:
  """Measures how well a classifier separates samples of the same nodules."""
  num_readers = [nodule.num_readers for nodule in nodules]
  features, groups = realism.table(real.images, real.votes, num_readers)
  simulated_features, _ = realism.table(
    simulated.images, simulated.votes, num_readers
  )
  return realism.separability(
    features,
    simulated_features,
    groups,
    folds=np.array([nodule.fold for nodule in nodules]),
    patients=np.array([nodule.patient_id for nodule in nodules]),
  )


def phantoms(every: int = 1, kind: str | None = None) -> hu_statistics.Sample:
  """Simulates nodules of the config `phantom`.

  Args:
    every: step between the nodules; 1 for all.
    kind: selects nodules by `hu_statistics.kind`; None for all.

  Returns:
    The SIMULATED sample.
  """
  policy = selection.POLICIES['paper']
  nodules = [
    nodule
    for nodule in selection.select(policy)[::every]
    if kind in (None, hu_statistics.kind(nodule.ratings))
  ]
  return _read([reader.Job((n,), policy) for n in nodules])[1]


def _read(
  jobs: Sequence[reader.Job],
) -> tuple[list[selection.Nodule], hu_statistics.Sample]:
  """Reads jobs of one nodule each; leaves out those that cannot be read."""
  nodules: list[selection.Nodule] = []
  examples: list[reader.Example] = []
  for job in tqdm.tqdm(jobs, unit='nodule', disable=len(jobs) < _MIN_PROGRESS):
    found, _, losses = reader.read(job)
    # There may be no consensus, or the slice may be missing or broken.
    if found and not losses:
      nodules += job.nodules
      examples += found
  return nodules, sample(
    [e.image for e in examples], [e.votes for e in examples], nodules
  )


def table(samples: Mapping[str, hu_statistics.Sample]) -> str:
  """Formats the statistics of samples as Markdown.

  Args:
    samples: title -> sample.

  Returns:
    A table with a row per statistic and a column per sample. Statistics with a
    value per nodule are given as the median and the range of 90 % of nodules.
  """
  rows = [['HU', *samples], ['---'] * (len(samples) + 1)]
  shares = [f'{100 * q:.0f}' for q in hu_statistics.QUANTILES]
  rows.append([f'lung, {"/".join(shares)} %'])
  rows.append(['noise in quiet lung: sd; correlation at 1, 2 px'])
  for s in samples.values():
    quantiles = np.quantile(s.hu['lung'], hu_statistics.QUANTILES)
    rows[2].append(' / '.join(f'{q:.0f}' for q in quantiles))
    noise = hu_statistics.texture(s.images)
    rows[3].append(f'{noise.sd:.0f}; {noise.lag_1:.2f}, {noise.lag_2:.2f}')
  for kind in ('solid', 'ground glass'):
    for field, name in (
      ('core_mean', 'core, mean'),
      ('core_sd', 'core, sd'),
      ('rim', 'core minus whole nodule'),
      ('ring_mean', 'ring, mean'),
      ('ring_sd', 'ring, sd'),
      ('ring_above_lung', 'ring minus lung'),
    ):
      rows.append([f'{kind}: {name}'])
      column = hu_statistics.Levels._fields.index(field)
      for s in samples.values():
        rows[-1].append(_median_and_range(s.levels[s.kinds == kind, column]))
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _median_and_range(values: np.ndarray) -> str:
  values = values[np.isfinite(values)]
  if len(values) < 2:
    return f'{values[0]:.0f}' if len(values) else '-'
  low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
  return f'{middle:.0f} ({low:.0f} to {high:.0f}; {len(values)})'


def separability_table(found: realism.Separability) -> str:
  """Formats the result of `separability` as Markdown."""
  low, high = found.ci95
  rows = [
    ('told apart by', 'AUC'),
    ('---', '---'),
    ('everything', f'{found.auc:.3f} ({low:.3f}-{high:.3f})'),
    *((f'{name} alone', f'{auc:.3f}') for name, auc in found.by_group.items()),
  ]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('tools.compare_phantom', __doc__)
  parser.add_argument(
    '--lidc_dir',
    required=True,
    metavar='DIR',
    type=command_line.path,
    help='folder with the DICOM files of LIDC-IDRI',
  )
  parser.add_argument(
    '--out',
    required=True,
    metavar='FILE',
    type=command_line.path,
    help='PNG file for the figure',
  )
  parser.add_argument(
    '--leave_out',
    nargs='*',
    default=(),
    metavar='NODULE',
    help='ids of nodules to leave out, such as those that the CT does not show',
  )
  args = parser.parse_args()
  nodules, real, simulated = real_and_phantom(
    args.lidc_dir, leave_out=args.leave_out
  )
  try:
    phantom_figure.draw(nodules, real, simulated).savefig(
      args.out, dpi=100, metadata={'Software': None}
    )
  except OSError as e:
    raise errors.InputError(
      f'cannot write --out={args.out} ({e.strerror}); choose another place'
    ) from e
  print(
    table(
      {
        f'real CT, {len(nodules)} nodules': real,
        'the same, SIMULATED': simulated,
      }
    )
  )
  if len({nodule.fold for nodule in nodules}) < 2:
    print('\nToo few patients to train a classifier that tells them apart.')
    return
  print()
  print(separability_table(separability(nodules, real, simulated)))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
