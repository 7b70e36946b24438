"""Segments and classifies nodules of a CT series, at given points.

    python -m mtnet_jax.predict --checkpoint=RUN --dicom=DIR --points=FILE \\
      --out=OUT
    python -m mtnet_jax.predict --checkpoint=RUN --ct=CT.nii.gz --points=FILE \\
      --out=OUT

For research; this is no medical device. Into OUT go

    index.html           to look at: a row per point, all slices of each nodule
                         with their outlines; it can be sent alone
    predictions.json     a record per point: sizes, probability of malignancy,
                         and Dice where the readers' mask is known
    ID.png               CT, masks and activation map around each point
    segmentation.dcm     DICOM Segmentation with a segment per point, opens over
                         the CT; names the patient as the CT does (alone here)
    segmentation.nii.gz  the same as NIfTI, with --nifti; of --ct always, on the
                         grid of the file, and no segmentation.dcm

Masks are three-dimensional: found on the point's slice, and followed from
slice to slice until they end. Of what the networks mark, the piece counts that
holds the point or comes nearest to it.

--points is a CSV file; its header says what the numbers are: x,y,z patient mm
(LPS, as in DICOM), r,a,s those of NIfTI and 3D Slicer, row,col,slice or
i,j,k voxels from 0; a column id is kept, and of rows with a seriesuid only
those of the series count, as in LUNA16's annotations.csv. Or it is a markups
file of 3D Slicer (.mrk.json, .fcsv), or boxes of MONAI's detection (.json).

Diameter and area are those of the mask on the point's slice, the volume is that
of all its slices. A mask that reaches the edge of its patch is no outline, and
has no size: null in predictions.json, - in the table. --fields defines each.

    python -m mtnet_jax.predict --checkpoint=RUN --dicom=ROOT --annotated \\
      --out=OUT

looks at all annotated series of LIDC-IDRI where ROOT holds several. Each gets a
folder in OUT, beside predictions.csv, a row per nodule, and index.html, a table
with links. Given again, the command does what is not done yet.

Where the CT lacks what a Segmentation needs, all else is written, and a note
says what. The files of an earlier use of OUT go when all new ones are complete:
what stops the command in between leaves all old ones, or the next use of OUT
brings back one set whole; of several series, each by itself. Files of others
stay, and one in the place of a result, or an input there, is refused. One
process at a time writes into OUT.

Exit code: 0 all was done, 1 some points or series were not, miss slices, or
there is no Segmentation of what was found, 2 nothing could be done. What failed
is a line on stderr that begins with error:, what is doubtful one with note:.
"""

import argparse
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

# How many of the points that a note is on are named in its line.
_MAX_NAMED = 3


class _PrintFields(argparse.Action):
  """Prints what predictions.json holds, as --help prints itself."""

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
    help='a trained run, a bundle of one, the URL of either, or the name of a'
    ' model that comes with mtnet_jax; of several,'
    " such as those of five folds, the average, with each one's malignancy",
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
    '--series', metavar='UID', help='which, where the folder holds several'
  )
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument(
    '--points',
    metavar='FILE',
    type=command_line.path,
    help='where to look, see above',
  )
  where.add_argument(
    '--annotated',
    nargs='?',
    const='all',
    choices=('all', 'paper'),
    help='the nodules of a scan of LIDC-IDRI, or of all in the folder, with the'
    ' truth of the dataset lidc_nodules/all (default) or /paper; a note says'
    ' where the model was trained on the patient or chosen by it',
  )
  parser.add_argument(
    '--out',
    required=True,
    type=command_line.path,
    help='folder for the results',
  )
  parser.add_argument(
    '--nifti', action='store_true', help='write the masks as NIfTI, too'
  )
  parser.add_argument(
    '--fields',
    action=_PrintFields,
    nargs=0,
    help='say what each field of predictions.json means, and exit',
  )
  args = parser.parse_args(argv)
  if args.ct and args.annotated:
    parser.error('--annotated needs the DICOM files of the scan, as --dicom')
  return args


def _load(paths, *, symmetries):
  # JAX takes seconds to import: bad input is reported before.
  from mtnet_jax.inference import bundles
  from mtnet_jax.inference import ensemble

  models = [bundles.load(path) for path in paths]
  # A bundle may have all symmetries by itself.
  if len(models) == 1 and (not symmetries or models[0].symmetries):
    return models[0]
  return ensemble.Ensemble(models, symmetries=symmetries)


def _print_error(line):
  # Above a progress bar, where there is one.
  tqdm.tqdm.write(f'error: {errors.one_line(line)}', file=sys.stderr)


def _print_note(line):
  print(f'note: {errors.one_line(line)}', file=sys.stderr)


def _print_notes(nodules, index):
  """Prints each note once, with the points that it is on.

  Args:
    nodules: (place, nodule) of the points.
    index: what predictions.json holds on them.
  """
  for note in index['notes']:
    _print_note(note)
  ids = {}  # note -> the points that it is on
  for (_, nodule), record in zip(nodules, index['points'], strict=True):
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


def main(argv=None):
  """Runs the command; returns its exit code, 0 or 1.

  Raises:
    errors.InputError: nothing could be done.
  """
  args = _parse(argv)
  points = points_lib.read(args.points) if args.points else None
  if args.ct:
    volume = image_volume.ImageVolume(args.ct)
    return _predict_one(args, volume, points, [args.ct])
  index = series.read(args.dicom)
  if args.annotated and not args.series and len(series.usable(index)) > 1:
    return _predict_all(args, index)
  volume = series.choose(index, args.dicom, series_uid=args.series)
  inputs = [one.path for one in index.series[volume.series_uid].slices]
  return _predict_one(args, volume, points, inputs)


def _predict_one(args, volume, points, inputs):
  """Looks at the points of a CT; returns the exit code."""
  if points:
    wanted, faults = places.of_points(
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
    out_folder.check_one(
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
  """Writes what was found, and says what was not; returns the exit code."""
  for name, error in faults:
    _print_error(f'point {name}: {error}{error.detail}')
  if not nodules:
    raise errors.InputError(
      f'none of the {len(faults)} points could be handled: nothing was written.'
    )
  notes = []
  if points and points.in_mm:
    notes = search.notes_on_frame(nodules, volume, model)
  seen = _seen_by(model) if args.annotated else None
  from mtnet_jax.ct import results

  own = out_folder.of_one_series
  with together.together(out, out_folder.INDEX, own) as staged:
    index = results.write(
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
  print(results.table(index))
  _print_notes(nodules, index)
  print(
    f'Written: {out}/{out_folder.PAGE}, {out_folder.INDEX}, pictures, masks'
  )
  return int(not results.is_complete(index))


def _seen_by(model):
  from mtnet_jax.inference import seen_by

  return seen_by.model(model)


def _predict_all(args, index):
  """Looks at every annotated series of a folder; returns the exit code."""
  scans, notes = many_series.plan(index, args.annotated)
  out = files.make_folder(args.out, '--out')
  with together.one_writer(out):
    return _write_all(args, index, scans, notes, out)


def _write_all(args, index, scans, notes, out):
  """Does the series, into a folder that is locked; returns the exit code."""
  together.mend(out, out_folder.INDEX)
  together.mend(out, out_folder.TABLE)
  many_series.check_folder(out, many=True)
  out_folder.check_many(out)
  model = _load(args.checkpoint, symmetries=args.symmetries)
  for note in notes:
    _print_note(note)
  done = many_series.run(
    scans,
    index,
    model,
    out,
    options=_options(args),
    seen=_seen_by(model),
    on_error=_print_error,
  )
  from mtnet_jax.ct import summary

  rows = summary.write(out, done, model, notes)
  skipped = sum(one.skipped for one in done)
  if skipped:
    _print_note(
      f'{skipped} of {len(done)} series were done before by this model with'
      ' these options: skipped'
    )
  failed = sum(row['status'] == summary.FAILED for row in rows)
  print(
    f'{len(rows) - failed} of {len(rows)} nodules of {len(done)} series'
    f' {_about(model, any(row["simulated_ct"] for row in rows))}'
  )
  print(
    f'Written: {out}/{out_folder.PAGE}, {out_folder.TABLE} (with all notes),'
    ' and a folder for each series'
  )
  return int(not summary.is_complete(done))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
