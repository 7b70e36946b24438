r"""Segments and classifies nodules of a CT at given points.

    python -m mtnet_jax.predict --checkpoint=RUN --dicom=DIR --points=FILE \
      --out=OUT
    python -m mtnet_jax.predict --checkpoint=RUN --ct=CT.nii.gz --points=FILE \
      --out=OUT

For research only; this is not a medical device. The command writes to OUT:

    index.html           a page with a row per point and all slices of each
                         nodule with their outlines, in one file
    predictions.json     a record per point: sizes, probability of malignancy,
                         and Dice if the readers' mask is known
    ID.png               CT, masks and activation map around each point
    segmentation.dcm     DICOM Segmentation with a segment per point, opens over
                         the CT; the only file that names the patient
    segmentation.nii.gz  the same masks as NIfTI, with --nifti; with --ct it is
                         always written, and no segmentation.dcm

Masks are three-dimensional: each is found on the point's slice and followed
from slice to slice until it ends. If the networks mark several components, the
one that holds the point or comes nearest to it is the nodule.

--points is a CSV file. Its header says what the numbers are: x,y,z patient mm
(LPS, as in DICOM), r,a,s patient mm of NIfTI and 3D Slicer, row,col,slice or
i,j,k voxels from 0. A column id holds the points' names. If there is a column
seriesuid, as in LUNA16's annotations.csv, only rows of the CT's series count.
Points may also be markups of 3D Slicer (.mrk.json, .fcsv) or boxes of MONAI.

Diameter and area refer to the mask on the point's slice, the volume to all
slices. A mask that reaches the edge of its patch is no outline: its sizes are
null in predictions.json and - in the table. --fields explains every field.

    python -m mtnet_jax.predict --checkpoint=RUN --dicom=ROOT --annotated \
      --out=OUT

predicts all annotated series of LIDC-IDRI if ROOT holds several. OUT gets a
folder per series, predictions.csv with a row per nodule, and index.html, a
table with links. A second run predicts only the series that are not done yet.

If the CT lacks what a Segmentation needs, the other files are written, and a
note says what is missing. New files of a series replace those of an earlier run
together, when all are complete. If the command is interrupted, the old files
stay, or the next run restores one whole set. The command refuses to replace an
input or a file of another origin; such files stay. Only one process at a time
can write to OUT.

Exit code: 0 everything was done; 1 some points or series failed, slices are
missing, or a Segmentation could not be made; 2 nothing could be done. On
stderr, lines that begin with error: are failures, and lines with note: doubts.
"""

import argparse
from collections.abc import Sequence
import sys

import tqdm

from mtnet_jax.ct import fields
from mtnet_jax.ct import image_volume
from mtnet_jax.ct import many_series
from mtnet_jax.ct import nifti
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import places
from mtnet_jax.ct import points as points_lib
from mtnet_jax.ct import search
from mtnet_jax.ct import series
from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import command_line
from mtnet_jax.system import errors

# The line of a note names at most this many of its points.
_MAX_NAMED = 3


class _PrintFields(argparse.Action):
  """Prints the fields of predictions.json and exits, like --help."""

  def __call__(self, parser, *args):
    print(fields.text())
    parser.exit()


def _parse(argv):
  parser = command_line.parser(__doc__, 'predict')
  parser.add_argument(
    '--checkpoint',
    required=True,
    nargs='+',
    metavar='RUN',
    type=command_line.path,
    help='a trained run, a bundle, the URL of either, or the name of a model of'
    ' mtnet_jax; several, such as those of five folds, are averaged',
  )
  parser.add_argument('--symmetries', **command_line.SYMMETRIES)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument(
    '--dicom',
    nargs='+',
    metavar='DIR',
    type=command_line.path,
    help='folder of a CT series, or its files',
  )
  source.add_argument(
    '--ct',
    metavar='FILE',
    type=command_line.path,
    help='a CT as NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD, in HU;'
    " needs SimpleITK: pip install 'mtnet_jax[volumes]'",
  )
  parser.add_argument(
    '--series', metavar='UID', help='which one, if --dicom holds several'
  )
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument(
    '--points',
    metavar='FILE',
    type=command_line.path,
    help='points at which to search for nodules, see above',
  )
  where.add_argument(
    '--annotated',
    nargs='?',
    const='all',
    choices=('all', 'paper'),
    help='the nodules of a scan of LIDC-IDRI, or of all scans in the folder,'
    " with the readers' masks of lidc_nodules/all (default) or /paper; a note"
    ' says if the model was trained on the patient or selected with it',
  )
  parser.add_argument(
    '--out',
    required=True,
    type=command_line.path,
    help='folder for the results',
  )
  parser.add_argument(
    '--nifti', action='store_true', help='also write the masks as NIfTI'
  )
  parser.add_argument(
    '--fields',
    action=_PrintFields,
    nargs=0,
    help='explain each field of predictions.json and exit',
  )
  args = parser.parse_args(argv)
  if args.ct and args.annotated:
    parser.error('--annotated needs the DICOM files of the scan, as --dicom')
  return args


def _load(paths, *, symmetries):
  # JAX takes seconds to import, so this is done after all checks of the input.
  from mtnet_jax.inference import bundles
  from mtnet_jax.inference import ensemble

  models = [bundles.load(path) for path in paths]
  # A bundle may be an ensemble over the symmetries itself.
  if len(models) == 1 and (not symmetries or models[0].symmetries):
    return models[0]
  return ensemble.Ensemble(models, symmetries=symmetries)


def _print_error(line):
  # `tqdm.write` prints above a progress bar.
  tqdm.tqdm.write(f'error: {errors.one_line(line)}', file=sys.stderr)


def _print_note(line):
  print(f'note: {errors.one_line(line)}', file=sys.stderr)


def _print_notes(nodules, predictions):
  """Prints each note once, with the points that it is about.

  Args:
    nodules: (place, nodule) of the points.
    predictions: content of predictions.json.
  """
  for note in predictions['notes']:
    _print_note(note)
  ids = {}  # note -> ids of its points
  for (_, nodule), record in zip(nodules, predictions['points'], strict=True):
    details = dict(nodule.missing_notes())
    for note in record['notes']:
      ids.setdefault(note + details.get(note, ''), []).append(record['id'])
  for note, names in ids.items():
    more = len(names) - _MAX_NAMED
    shown = ', '.join(names[:_MAX_NAMED])
    shown += f' and {more} more' if more > 0 else ''
    _print_note(f'point{"s" if len(names) > 1 else ""} {shown}: {note}')


def _about(model, simulated_ct):
  return (
    f'({"SIMULATED CT" if simulated_ct else "CT"}), model {model.name},'
    f' trained on {"SIMULATED" if model.simulated else "real"} nodules.'
  )


def _options(args):
  return {
    'symmetries': args.symmetries,
    'annotated': args.annotated,
    'nifti': args.nifti,
  }


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code, 0 or 1.

  Raises:
    errors.InputError: nothing could be done.
  """
  args = _parse(argv)
  points = points_lib.read(args.points) if args.points else None
  if args.ct:
    image = image_volume.ImageVolume(args.ct)
    return _predict_one(args, image, points, [args.ct])
  series_index = series.read(args.dicom)
  several = len(series.usable(series_index)) > 1
  if several and args.annotated and not args.series:
    return _predict_all(args, series_index)
  volume = series.choose(series_index, args.dicom, series_uid=args.series)
  inputs = [one.path for one in series_index.series[volume.series_uid].slices]
  return _predict_one(args, volume, points, inputs)


def _predict_one(args, volume, points, inputs):
  """Predicts the points of one CT, and returns the exit code."""
  if points:
    wanted, faults = places.from_points(
      points.of_series(volume.series_uid), volume
    )
  else:
    wanted, faults = places.annotated(volume, args.annotated)
  if args.nifti and not args.ct:
    nifti.check(volume)
  if not wanted:
    return _write_one(args, volume, points, [], faults, None, None)
  out = files.make_folder(args.out, '--out')
  with together.one_writer(out):
    together.mend(out, out_folder.INDEX)
    many_series.check_folder(out, many=False)
    out_folder.check_series_folder(
      out,
      [place.place_id for place in wanted],
      [*inputs, args.points] if args.points else inputs,
      segmentation=not args.ct,
      nifti=bool(args.nifti or args.ct),
    )
    model = _load(args.checkpoint, symmetries=args.symmetries)
    nodules, failed = search.find(wanted, volume, model)
    faults += failed
    return _write_one(args, volume, points, nodules, faults, model, out)


def _write_one(args, volume, points, nodules, faults, model, out):
  """Writes the results, prints failures, and returns the exit code."""
  for name, error in faults:
    _print_error(f'point {name}: {error}{error.detail}')
  if not nodules:
    raise errors.InputError(
      f'none of the {len(faults)} points could be predicted, for the reasons'
      ' above: nothing was written.'
    )
  notes = []
  if points and points.in_mm:
    notes = search.notes_on_frame(nodules, volume, model)
  seen = _seen_by(model) if args.annotated else None
  from mtnet_jax.ct import results

  own = out_folder.series_files
  with together.together(out, out_folder.INDEX, own) as staged:
    predictions = results.write(
      staged,
      nodules,
      faults,
      volume,
      model,
      notes,
      with_nifti=args.nifti,
      made_with=results.made_with(model, volume.num_files, **_options(args)),
      seen=seen,
    )
  name = args.ct or f'Series {volume.series_uid}'
  print(f'{name} {_about(model, volume.simulated)}')
  print(results.table(predictions))
  _print_notes(nodules, predictions)
  print(
    f'Written: {out}/{out_folder.PAGE}, {out_folder.INDEX}, pictures, masks'
  )
  return int(not results.is_complete(predictions))


def _seen_by(model):
  from mtnet_jax.inference import seen_by

  return seen_by.model(model)


def _predict_all(args, series_index):
  """Predicts every annotated series of a folder, and returns the exit code."""
  scans, notes = many_series.plan(series_index, args.annotated)
  out = files.make_folder(args.out, '--out')
  with together.one_writer(out):
    return _write_all(args, series_index, scans, notes, out)


def _write_all(args, series_index, scans, notes, out):
  """Predicts the scans into a locked folder, and returns the exit code."""
  together.mend(out, out_folder.INDEX)
  together.mend(out, out_folder.TABLE)
  many_series.check_folder(out, many=True)
  out_folder.check_summary_folder(out)
  model = _load(args.checkpoint, symmetries=args.symmetries)
  for note in notes:
    _print_note(note)
  scan_results = many_series.run(
    scans,
    series_index,
    model,
    out,
    options=_options(args),
    seen=_seen_by(model),
    on_error=_print_error,
  )
  from mtnet_jax.ct import summary

  rows = summary.write(out, scan_results, model, notes)
  skipped = sum(result.skipped for result in scan_results)
  if skipped:
    _print_note(
      f'{skipped} of {len(scan_results)} series were done before by this model'
      ' with these options: skipped'
    )
  failed = sum(row['status'] == summary.FAILED for row in rows)
  print(
    f'{len(rows) - failed} of {len(rows)} nodules of {len(scan_results)} series'
    f' {_about(model, any(row["simulated_ct"] for row in rows))}'
  )
  print(
    f'Written: {out}/{out_folder.PAGE}, {out_folder.TABLE} (with all notes),'
    ' and a folder for each series'
  )
  return int(not summary.is_complete(scan_results))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
