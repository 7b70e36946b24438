"""Sets SIMULATED patches beside real ones: a figure and a table.

    python -m tfds_lidc.tools.compare_phantom --lidc_dir=DIR --out=FILE.png

takes the nodules of the config `paper` whose CT is in DIR, each once in that CT
and once SIMULATED. It draws outlines of four, their phantoms, and histograms of
all; and prints as Markdown what both look like in numbers (`hu_statistics`),
and how well a classifier tells one from the other (`realism`). Of the CT no
pixel is in the figure.
"""

from typing import NamedTuple

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

_MIN_PX = 20  # of a core that counts
_MANY = 50  # nodules, which take seconds to read


class Sample(NamedTuple):
  """Patches that are described together.

  Attributes:
    images: (n, 64, 64) HU.
    masks: (n, 64, 64) bool, what half of the readers marked.
    kinds: (n,), of `hu_statistics.kind`.
    levels: (n, 6), `hu_statistics.Levels`; NaN where the core is too small.
    hu: region -> (pixels,) of all patches: lung, ring, and a core per kind.
    votes: (n, 64, 64), how many readers marked a pixel.
  """

  images: np.ndarray
  masks: np.ndarray
  kinds: np.ndarray
  levels: np.ndarray
  hu: dict[str, np.ndarray]
  votes: np.ndarray


def sample(images, votes, nodules):
  """Describes patches: (n, 64, 64) HU and votes, n `selection.Nodule`."""
  parts = [
    hu_statistics.regions(image, marks, nodule.num_readers)
    for image, marks, nodule in zip(images, votes, nodules, strict=True)
  ]
  kinds = np.array([hu_statistics.kind(n.ratings) or '' for n in nodules])
  levels = np.array(
    [
      hu_statistics.levels(image, part)
      if part.core.sum() >= _MIN_PX
      else np.full(len(hu_statistics.Levels._fields), np.nan)
      for image, part in zip(images, parts, strict=True)
    ]
  )

  def pixels(name, kind=None):
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
  return Sample(np.array(images), masks, kinds, levels, hu, np.array(votes))


def real_and_phantom(lidc_dir, *, config='paper', leave_out=()):
  """The nodules of some CT, real and SIMULATED.

  Args:
    lidc_dir: holds DICOM files of LIDC-IDRI.
    config: of the dataset, which selects nodules.
    leave_out: ids of nodules.

  Returns:
    (nodules, real Sample, SIMULATED Sample), the largest nodule first.

  Raises:
    InputError: no nodule of LIDC-IDRI can be read there, or it is SIMULATED.
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
      f'{lidc_dir} holds no nodule of LIDC-IDRI; give a folder with a whole '
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
    if job.series.simulated:
      raise errors.InputError(
        f'{job.series.folder} is SIMULATED, and would be shown as real; give '
        'a folder with CT of LIDC-IDRI'
      )
  nodules, real = _read(jobs)
  if not nodules:
    raise errors.InputError(
      f'{lidc_dir} holds no slice that shows a nodule; `python -m'
      f' tfds_lidc.check --lidc_dir={lidc_dir}` says what is missing'
    )
  _, simulated = _read([reader.Job((n,), policy) for n in nodules])
  return nodules, real, simulated


def told_apart(nodules, real, simulated):
  """`realism.Told` of two samples of the same nodules."""
  counts = [nodule.num_readers for nodule in nodules]
  numbers, groups = realism.table(real.images, real.votes, counts)
  simulated_numbers, _ = realism.table(
    simulated.images, simulated.votes, counts
  )
  return realism.tell_apart(
    numbers,
    simulated_numbers,
    groups,
    folds=np.array([nodule.fold for nodule in nodules]),
    patients=np.array([nodule.patient_id for nodule in nodules]),
  )


def phantoms(every=1, kind=None):
  """The SIMULATED Sample of the config `phantom`.

  Args:
    every: takes one in so many of the nodules.
    kind: takes those of one of `hu_statistics.kind`.
  """
  policy = selection.POLICIES['paper']
  nodules = [
    nodule
    for nodule in selection.select(policy)[::every]
    if kind in (None, hu_statistics.kind(nodule.ratings))
  ]
  return _read([reader.Job((n,), policy) for n in nodules])[1]


def _read(jobs):
  """The nodules of jobs of one each that can be read, and their Sample."""
  nodules, examples = [], []
  for job in tqdm.tqdm(jobs, unit='nodule', disable=len(jobs) < _MANY):
    found, _, losses = reader.read(job)
    # None without consensus, and none whose slice is missing or broken.
    if found and not losses:
      nodules += job.nodules
      examples += found
  return nodules, sample(
    [e.image for e in examples], [e.votes for e in examples], nodules
  )


def table(samples):
  """Statistics of samples as Markdown.

  Args:
    samples: title -> Sample.

  Returns:
    A row per statistic, a column per sample: where a statistic is one number
    per nodule, its median, and its range over 90 % of them.
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


def _median_and_range(values):
  values = values[np.isfinite(values)]
  if len(values) < 2:
    return f'{values[0]:.0f}' if len(values) else '-'
  low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
  return f'{middle:.0f} ({low:.0f} to {high:.0f}; {len(values)})'


def told_as_text(told):
  """`realism.Told` as Markdown."""
  low, high = told.ci95
  rows = [
    ('told apart by', 'AUC'),
    ('---', '---'),
    ('everything', f'{told.auc:.3f} ({low:.3f}-{high:.3f})'),
    *((f'{name} alone', f'{auc:.3f}') for name, auc in told.by_group.items()),
  ]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def main() -> None:
  parser = command_line.parser('tools.compare_phantom', __doc__)
  parser.add_argument(
    '--lidc_dir',
    required=True,
    metavar='DIR',
    type=command_line.path,
    help='DICOM files of LIDC-IDRI',
  )
  parser.add_argument(
    '--out',
    required=True,
    metavar='FILE',
    type=command_line.path,
    help='the figure, a PNG',
  )
  parser.add_argument(
    '--leave_out',
    nargs='*',
    default=(),
    metavar='NODULE',
    help='nodules that the CT does not show, by id',
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
  told = told_apart(nodules, real, simulated)
  print()
  print(told_as_text(told))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
