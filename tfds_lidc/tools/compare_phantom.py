"""Sets SIMULATED patches beside real ones: a figure and a table.

    python -m tfds_lidc.tools.compare_phantom --lidc_dir=DIR --out=FILE.png

draws the largest nodules of the CT in DIR above their own phantoms, and prints
as Markdown what both look like in numbers (`hu_statistics`), with all phantoms
of the config `phantom` as a third column.
"""

import os
from typing import NamedTuple

import numpy as np

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.ct import index as series_index
from tfds_lidc.nodules import selection
from tfds_lidc.scans import reader
from tfds_lidc.tools import hu_statistics

NUM_NODULES = 4
WINDOW_HU = (-1350, 150)  # the usual lung window
CREDIT = (
  'CT and outlines: LIDC-IDRI, The Cancer Imaging Archive,'
  ' doi.org/10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0'
)
_MIN_PX = 20  # of a core that counts
_REAL, _SIMULATED = '#1b5e9b', '#d1642c'


class Sample(NamedTuple):
  """Patches that are described together.

  Attributes:
    images: (n, 64, 64) HU.
    masks: (n, 64, 64) bool, what half of the readers marked.
    kinds: (n,), of `hu_statistics.kind`.
    levels: (n, 6), `hu_statistics.Levels`; NaN where the core is too small.
    hu: region -> (pixels,) of all patches: lung, ring, and a core per kind.
  """

  images: np.ndarray
  masks: np.ndarray
  kinds: np.ndarray
  levels: np.ndarray
  hu: dict[str, np.ndarray]


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
  return Sample(np.array(images), masks, kinds, levels, hu)


def real_and_phantom(lidc_dir):
  """The largest nodules of some CT, real and SIMULATED.

  Args:
    lidc_dir: holds DICOM files of LIDC-IDRI.

  Returns:
    (nodules, real Sample, SIMULATED Sample).

  Raises:
    InputError: no nodule of LIDC-IDRI can be read there, or it is SIMULATED.
  """
  policy = selection.POLICIES['all']
  index = series_index.load(lidc_dir)
  series = index.series
  nodules = [n for n in selection.select(policy) if n.series_uid in series]
  nodules = sorted(nodules, key=lambda n: -n.diameter_mm)[:NUM_NODULES]
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
  phantom_jobs = [reader.Job((n,), policy) for n in nodules]
  return nodules, _read(jobs), _read(phantom_jobs)


def phantoms(every=1):
  """The SIMULATED Sample of the config `phantom`, or of one in `every`."""
  policy = selection.POLICIES['paper']
  nodules = selection.select(policy)[::every]
  return _read([reader.Job((n,), policy) for n in nodules])


def _read(jobs):
  """The Sample of jobs of one nodule each."""
  nodules, examples = [], []
  for job in jobs:
    found, _, losses = reader.read(job)
    if losses:
      raise errors.InputError(f'{losses[0].path} {losses[0].reason}')
    nodules += job.nodules[: len(found)]  # none without consensus
    examples += found
  return sample(
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


def draw(nodules, real, simulated):
  """The figure: patches with outlines, and histograms below.

  Args:
    nodules: n `selection.Nodule`.
    real: their Sample.
    simulated: their SIMULATED Sample.

  Returns:
    A matplotlib Figure.
  """
  from matplotlib import figure as mpl_figure

  figure = mpl_figure.Figure(figsize=(8, 6.6), layout='constrained')
  axes = figure.subplots(3, NUM_NODULES, height_ratios=(1, 1, 0.8))
  rows = (('real CT', real, _REAL), ('SIMULATED', simulated, _SIMULATED))
  for row, (title, of, colour) in zip(axes, rows, strict=False):
    for axis in row:
      axis.set_axis_off()
    for axis, image, mask in zip(row, of.images, of.masks, strict=False):
      low, high = WINDOW_HU
      axis.set_axis_on()
      axis.imshow(image, 'gray', vmin=low, vmax=high, interpolation='bicubic')
      axis.contour(mask, [0.5], colors=[colour], linewidths=0.9)
      axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(title, color=colour, weight='bold', fontsize=11)
  for axis, nodule in zip(axes[0], nodules, strict=False):
    texture = np.mean(nodule.texture)
    axis.set_title(
      f'{nodule.diameter_mm:.0f} mm, texture {texture:.1f}', fontsize=9
    )
  for axis, (name, hu) in zip(axes[2], real.hu.items(), strict=True):
    _histogram(axis, name, hu, simulated.hu[name])
  axes[2, 1].legend(fontsize=8, frameon=False, loc='upper right')
  axes[2, 0].set_ylabel('share of pixels', fontsize=9)
  figure.supxlabel(CREDIT, fontsize=7.5, color='0.35')
  return figure


def _histogram(axis, name, real, simulated):
  if not (len(real) and len(simulated)):
    axis.set_axis_off()
    return
  both = np.concatenate([real, simulated])
  bins = np.linspace(*np.quantile(both, (0.004, 0.985)), 30)
  for hu, label, colour in (
    (real, 'real CT', _REAL),
    (simulated, 'SIMULATED', _SIMULATED),
  ):
    weights = np.full(len(hu), 1 / len(hu))
    axis.hist(hu, bins, weights=weights, color=colour, alpha=0.25)
    axis.hist(
      hu, bins, weights=weights, color=colour, histtype='step', label=label
    )
  title = name if name in ('lung', 'ring') else f'{name}: core'
  axis.set_title(title, fontsize=9)
  axis.set_xlabel('HU', fontsize=9)
  axis.set_yticks([])
  axis.tick_params(labelsize=8)
  axis.spines[['top', 'right', 'left']].set_visible(False)


def main() -> None:
  parser = command_line.parser('tools.compare_phantom', __doc__)
  parser.add_argument(
    '--lidc_dir', required=True, metavar='DIR', help='DICOM files of LIDC-IDRI'
  )
  parser.add_argument(
    '--out', required=True, metavar='FILE', help='the figure, a PNG'
  )
  args = parser.parse_args()
  nodules, real, simulated = real_and_phantom(os.path.expanduser(args.lidc_dir))
  try:
    draw(nodules, real, simulated).savefig(
      os.path.expanduser(args.out), dpi=100, metadata={'Software': None}
    )
  except OSError as e:
    raise errors.InputError(
      f'cannot write --out={args.out} ({e.strerror}); choose another place'
    ) from e
  everything = phantoms()
  print(
    table(
      {
        f'real CT, {len(nodules)} nodules': real,
        'the same, SIMULATED': simulated,
        f'all {len(everything.images)} phantoms, SIMULATED': everything,
      }
    )
  )


if __name__ == '__main__':
  errors.exit_on_input_error(main)
