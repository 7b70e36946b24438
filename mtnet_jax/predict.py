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

Where the CT lacks what a Segmentation needs, all else is written, and a note
says what. The files of an earlier use of OUT go.

Exit code: 0 all was done, 1 some points were not, miss slices, or there is no
Segmentation of what was found, 2 nothing could be done. Each of these is a line
on stderr.
"""

import functools
import importlib
import sys
import threading

import tqdm

from mtnet_jax.ct import follow
from mtnet_jax.ct import image_volume
from mtnet_jax.ct import nifti
from mtnet_jax.ct import places
from mtnet_jax.ct import points as points_lib
from mtnet_jax.ct import series
from mtnet_jax.storage import files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors

# A point below lies outside of the body, or in a large airway.
_AIR_HU = -950


def _parse(argv):
  parser = command_line.parser(__doc__, 'predict')
  parser.add_argument(
    '--checkpoint',
    required=True,
    nargs='+',
    metavar='RUN',
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
    help='folder of a CT series, or its files',
  )
  source.add_argument(
    '--ct',
    metavar='FILE',
    help='a CT as NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD, in HU;'
    ' needs SimpleITK: pip install mtnet_jax[volumes]',
  )
  parser.add_argument(
    '--series', metavar='UID', help='which, where the folder holds several'
  )
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument(
    '--points', metavar='FILE', help='where to look, see above'
  )
  where.add_argument(
    '--annotated',
    nargs='?',
    const='all',
    choices=('all', 'paper'),
    help='the nodules of a scan of LIDC-IDRI, with the truth of the dataset'
    ' lidc_nodules/all (default) or /paper; a note says where the model was'
    ' trained on the patient or chosen by it',
  )
  parser.add_argument('--out', required=True, help='folder for the results')
  parser.add_argument(
    '--nifti', action='store_true', help='write the masks as NIfTI, too'
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


def _print_errors(faults, before=''):
  for name, error in faults:
    line = errors.one_line(f'point {name}: {before}{error}{error.detail}')
    print('error:', line, file=sys.stderr)


def _find(wanted, volume, model):
  """Finds the nodules at places.

  Returns:
    A list of (place, nodule), and one of (id, error) of the other places.
  """
  # While the networks compute, the interpreter has time to import what draws:
  # Matplotlib takes a second.
  threading.Thread(
    target=importlib.import_module, args=('mtnet_jax.ct.results',), daemon=True
  ).start()
  starts = [
    follow.Start(place.voxel, fixed=place.truth is not None) for place in wanted
  ]
  predict_fn = functools.partial(
    model.predict, pixel_spacing_mm=volume.pixel_spacing_mm
  )
  with tqdm.tqdm(
    total=len(starts),
    desc='nodules',
    unit='nodule',
    leave=False,
    disable=None,  # shown on a terminal only
  ) as bar:
    results = follow.follow(starts, volume, predict_fn, on_done=bar.update)
  nodules, faults = [], []
  for place, result in zip(wanted, results, strict=True):
    if isinstance(result, follow.Nodule):
      nodules.append((place, result))
    else:
      faults.append((place.place_id, result))
  return nodules, faults


def _notes_on_frame(nodules, volume, model):
  """Whether points that all mark nothing would mark something as RAS."""
  if not nodules or any(_marks(nodule) for _, nodule in nodules):
    return []
  others = places.mirrored([place for place, _ in nodules], volume)
  found, _ = _find(others, volume, model)
  count = sum(_marks(nodule) for _, nodule in found)
  if not count:
    return []
  return [
    'no point marks anything as x,y,z in LPS; with the signs of x and y changed'
    f' {count} of {len(nodules)} do: if the points are RAS, as those of NIfTI'
    ' and 3D Slicer, call the columns r,a,s'
  ]


def _marks(nodule):
  """Whether a nodule was found, in something that is no air."""
  hu = nodule.view.hu
  middle = hu[tuple(slice(side // 2 - 2, side // 2 + 2) for side in hu.shape)]
  return bool(nodule.pixels) and middle.max() > _AIR_HU


def main(argv=None):
  """Runs the command; returns its exit code, 0 or 1.

  Raises:
    errors.InputError: nothing could be done.
  """
  args = _parse(argv)
  points = points_lib.read(args.points) if args.points else None
  if args.ct:
    volume = image_volume.ImageVolume(args.ct)
  else:
    volume = series.find(args.dicom, series_uid=args.series)
  if points:
    wanted, faults = places.of_points(
      points.of_series(volume.series_uid), volume
    )
  else:
    wanted, faults = places.annotated(volume, args.annotated)
  if args.nifti and not args.ct:
    nifti.check(volume)
  nodules = []
  if wanted:
    out = files.make_folder(args.out, '--out')
    model = _load(args.checkpoint, symmetries=args.symmetries)
    nodules, failed = _find(wanted, volume, model)
    faults += failed
  cut_off = [
    (place.place_id, error)
    for place, nodule in nodules
    for error in nodule.missing
  ]
  _print_errors(faults)
  _print_errors(cut_off, 'the mask may be cut off: ')
  if not nodules:
    raise errors.InputError(
      f'none of the {len(faults)} points could be handled: nothing was written.'
    )
  notes = []
  if points and points.in_mm:
    notes = _notes_on_frame(nodules, volume, model)
  seen = None
  if args.annotated:
    from mtnet_jax.inference import seen_by

    seen = seen_by.model(model)
  from mtnet_jax.ct import results

  with files.together(out, results.INDEX) as staged:
    table, notes, reason = results.write(
      staged,
      nodules,
      faults,
      volume,
      model,
      notes,
      with_nifti=args.nifti,
      seen=seen,
    )
  name = args.ct or f'Series {volume.series_uid}'
  print(
    f'{name}'
    f' ({"SIMULATED CT" if volume.simulated else "CT"}), model {model.name},'
    f' trained on {"SIMULATED" if model.simulated else "real"} nodules.'
  )
  print(table)
  for note in notes:
    print(f'note: {errors.one_line(note)}', file=sys.stderr)
  print(f'Written: {out}/{results.PAGE}, {results.INDEX}, pictures, masks')
  return int(bool(faults or cut_off or reason))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
