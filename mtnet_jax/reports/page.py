"""Writes the report of a run: one HTML page, its figures, its tables as CSV.

The page needs neither a network connection nor JavaScript, so the folder can
be sent to somebody as it is. The folder is written under a temporary name and
then renamed, so an incomplete report is never visible.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import TYPE_CHECKING
from typing import Any

from matplotlib import figure as mpl_figure
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.evaluation import subgroups
from mtnet_jax.reports import examples as examples_lib
from mtnet_jax.reports import figures
from mtnet_jax.reports import html
from mtnet_jax.reports import malignancy_figures
from mtnet_jax.reports import overlays
from mtnet_jax.reports import paper
from mtnet_jax.reports import paper_tables
from mtnet_jax.reports import run_tables
from mtnet_jax.reports import tables
from mtnet_jax.reports import training_table
from mtnet_jax.storage import files

if TYPE_CHECKING:
  from mtnet_jax.reports import commands as commands_lib

# config.coarse_mask -> the form in which other networks get the coarse mask.
_COARSE_MASKS = {
  'hard': 'thresholded',
  'soft': 'as probabilities',
  'none': 'withheld from the other networks',
}


def write(
  directory: pathlib.Path,
  *,
  results: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
  histories: Mapping[str, Sequence[Mapping[str, Any]]],
  examples: Sequence[examples_lib.Example],
  comparisons: Mapping[str, Any] | None = None,
  commands: 'commands_lib.Commands | None' = None,
  check: Callable[[], object] | None = None,
) -> None:
  """Writes index.html, PNGs and CSVs.

  Args:
    directory: of the report; an existing one is replaced.
    results: the content of metrics.json.
    records: one per test nodule, from `records.make_records`.
    histories: stage name -> a row per epoch, from `trainer.Trainer.run`.
    examples: from `examples.pick` or `examples.collect`.
    comparisons: name -> `comparisons.Comparison`, from `comparisons.read`.
    commands: from `commands.for_run`; shown in the rows that are not run.
    check: called just before the report replaces the old one; raises an
      exception if that is not allowed.

  Raises:
    errors.InputError: the report cannot be written.
  """
  with files.replaced_folder(directory) as folder:
    page = Page(folder, results['simulated'])
    names = tables.network_names(_strategy(results))
    _add_results(page, results, records, names)
    _add_paper_tables(page, results, comparisons or {}, commands)
    _add_malignancy(page, results, records, names)
    _add_readers_and_groups(page, results, records, names)
    _add_examples(page, records, examples, names)
    _add_training(page, histories, names)
    page.write(
      'report.html',
      results=results,
      summary=results['test'],
      facts=_facts(results),
      why_no_roc=_why_no_roc(records),
      replicates=bootstrap.REPLICATES,
    )
    if check is not None:
      check()


class Page:
  """Collects a page's tables and figures, and writes each as a file, too.

  Attributes:
    folder: where all files are written.
    simulated: whether the CT is simulated.
    tables: name -> table.
    pictures: name -> attributes of the HTML image.
  """

  def __init__(self, folder: pathlib.Path, simulated: bool):
    self.folder, self.simulated = folder, simulated
    self.tables: dict[str, tables.Table] = {}
    self.pictures: dict[str, dict[str, Any]] = {}

  def write(self, template: str, **values: Any) -> None:
    """Writes index.html.

    Args:
      template: file name of the template.
      **values: the template's variables, except those that all pages share.
    """
    text = html.render(
      template,
      simulated=self.simulated,
      tables=self.tables,
      pictures=self.pictures,
      citation=paper.CITATION,
      **values,
    )
    files.write_text(self.folder / 'index.html', text)

  def add_table(self, table: tables.Table) -> None:
    """Adds a table, and writes it as NAME.csv."""
    rows = tables.csv_rows(table, simulated=self.simulated)
    files.write_csv(self.folder / f'{table.name}.csv', rows)
    self.tables[table.name] = table

  def add_picture(self, name: str, figure: mpl_figure.Figure, alt: str) -> None:
    """Adds a figure, and writes it as NAME.png.

    Args:
      name: of the file, without the extension.
      figure: what to draw.
      alt: alternative text.
    """
    figures.save(figure, self.folder / f'{name}.png')
    width, height = (round(96 * side) for side in figure.get_size_inches())
    self.pictures[name] = {
      'file': f'{name}.png',
      'alt': tables.heading(alt, self.simulated),
      'width': width,
      'height': height,
    }


def _add_results(page, results, records, names):
  summary, strategy = results['test'], _strategy(results)
  if results.get('cohort'):
    page.add_table(run_tables.cohort(results['cohort'], results['dataset']))
  page.add_table(run_tables.segmentation(summary, strategy))
  page.add_table(run_tables.classification(summary, strategy))
  masks = records_lib.masks_of(records)
  if masks:
    page.add_picture(
      'dice',
      figures.dice_by_diameter(
        records, masks, simulated=page.simulated, names=names
      ),
      'Dice of every test nodule against its diameter',
    )


def _add_paper_tables(page, results, comparisons, commands):
  # In these tables, MT-Net is compared with other strategies and other masks.
  if _strategy(results) == 'mtnet' and _coarse_mask(results) != 'none':
    for table in paper_tables.make(results['test'], comparisons, commands):
      page.add_table(table)


def _add_malignancy(page, results, records, names):
  summary = results['test']
  page.add_table(run_tables.probabilities(summary, names))
  if _why_no_roc(records):
    return
  known = [record for record in records if record['label'] >= 0]
  labels = np.asarray([record['label'] for record in known])
  probabilities = scores.malignancy_scores(
    known, results['diameter_only_model']
  )
  measured = (labels, probabilities, summary)
  common = {'simulated': page.simulated, 'names': names}
  page.add_picture(
    'roc',
    malignancy_figures.roc(*measured, **common),
    'ROC curves of malignancy',
  )
  page.add_picture(
    'precision-recall',
    malignancy_figures.precision_recall(*measured, **common),
    'Precision-recall curves of malignancy',
  )
  page.add_picture(
    'calibration',
    malignancy_figures.reliability(
      *measured,
      records_lib.patient_weights(known, seed=results['seed']),
      **common,
    ),
    'Share of malignant nodules by predicted probability',
  )
  if 'classification' in probabilities:
    predictions = probabilities['classification'] >= metrics.THRESHOLD
    page.add_table(run_tables.confusion(labels, predictions, names))
    page.add_picture(
      'confusion',
      malignancy_figures.confusion(labels, predictions, summary, **common),
      'Confusion matrix: readers against the classifier',
    )


def _add_readers_and_groups(page, results, records, names):
  summary = results['test']
  if 'with_each_other' in summary['readers']:
    page.add_table(run_tables.readers(summary, names))
  groups = subgroups.make(records, seed=results['seed'])
  page.add_table(run_tables.subgroups(groups, names))
  masks = reversed(records_lib.masks_of(records))
  dice = [(f'{mask}_dice', names[mask]) for mask in masks]
  dice.append(('reader_dice', 'Readers with each other'))
  for xlabel, series in (('Dice', dice), ('AUC', [('auc', names['class'])])):
    if any(_has_value(group, key) for group in groups for key, _ in series):
      title = f'{xlabel} by group'
      page.add_picture(
        f'subgroups-{xlabel.lower()}',
        figures.by_group(
          groups, series, xlabel=xlabel, title=title, simulated=page.simulated
        ),
        f'{title}, with 95 % intervals',
      )


def _has_value(group, key):
  return group.estimates.get(key, {}).get('value') is not None


def _add_examples(page, records, examples, names):
  order, _ = examples_lib.order_by(records)
  page.add_table(run_tables.examples(examples, names))
  page.add_picture(
    'examples',
    overlays.draw_examples(
      examples, order=order, simulated=page.simulated, names=names
    ),
    'CT, contours and activation maps of the nodules in the table below',
  )


def _add_training(page, histories, names):
  trained = {name: history for name, history in histories.items() if history}
  stages = {
    name: _stage(name, history, names) for name, history in trained.items()
  }
  if trained:
    page.add_table(training_table.make(trained, stages))
  for name, history in trained.items():
    stage = stages[name]
    page.add_picture(
      f'training-{name}',
      figures.training_curves(history, **stage, simulated=page.simulated),
      f'Training of {stage["title"]}: loss and {stage["metric_name"]} by epoch',
    )


def _stage(name, history, names):
  """Returns a stage's title, and the metric that selects its best epoch."""
  metric_names = {
    'val_jaccard_and_auc': 'mean of Jaccard index and AUC',
    'val_jaccard': 'Jaccard index',
    'val_auc': 'AUC',
  }
  metric = next(key for key in metric_names if key in history[0])
  return {
    'title': names.get(name, f'stage {name}'),
    'metric': metric,
    'metric_name': metric_names[metric],
  }


def _strategy(results):
  return results.get('strategy', 'mtnet')


def _coarse_mask(results):
  return results.get('coarse_mask', 'hard')


def ct_and_hardware(results: Mapping[str, Any]) -> tuple[str, str]:
  """Returns the kind of CT and the hardware, as a page's header shows them."""
  hardware = results['hardware']
  return (
    'SIMULATED' if results['simulated'] else 'real',
    f'{hardware["devices"]} x {hardware["kind"]} ({hardware["platform"]})',
  )


def _facts(results):
  """Returns (name, text) of each fact in the header."""
  summary, (ct, hardware) = results['test'], ct_and_hardware(results)
  benign = summary['labelled'] - summary['malignant']
  num_open = summary['nodules'] - summary['labelled']
  nodules = f'{summary["nodules"]}: {summary["malignant"]} malignant,'
  nodules += f' {benign} benign' + (f', {num_open} open' if num_open else '')
  strategy = _strategy(results)
  return [
    ('Dataset', results['dataset']),
    ('CT', ct),
    ('Test nodules', nodules),
    ('Test patients', summary['patients']),
    ('Variant', results['variant']),
    *([] if strategy == 'mtnet' else [('Strategy', strategy)]),
    ('Coarse mask', _COARSE_MASKS[_coarse_mask(results)]),
    ('Seed', results['seed']),
    ('Hardware', hardware),
    ('Versions', _versions(results['versions'])),
    *(
      ('Earlier versions', _versions(versions))
      for versions in results.get('earlier_versions', [])
    ),
  ]


def _versions(versions):
  return ', '.join(f'{name} {version}' for name, version in versions.items())


def _why_no_roc(records):
  """Returns why there are no ROC curves, or '' if there are."""
  present = {record['label'] for record in records}
  missing = [metrics.LABELS[label] for label in (0, 1) if label not in present]
  if not missing:
    return ''
  return (
    'There are no ROC, precision-recall and calibration curves: the test set'
    f' has no nodule labelled {" or ".join(missing)}.'
  )
