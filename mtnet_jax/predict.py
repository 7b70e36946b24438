"""Segments and classifies nodules of a CT series, at given points.

    python -m mtnet_jax.predict --checkpoint=RUN --dicom=DIR --points=FILE \\
      --out=OUT

For research; this is no medical device. Into OUT go

    predictions.json     a record per point: sizes, probability of malignancy,
                         and Dice where the readers' mask is known
    ID.png               CT, masks and activation map around each point
    segmentation.dcm     DICOM Segmentation with a segment per point, opens over
                         the CT; names the patient as the CT does (alone here)
    segmentation.nii.gz  the same as NIfTI, with --nifti

Masks are three-dimensional: found on the point's slice, and followed from
slice to slice until they end. Of what the networks mark, the piece counts that
holds the point or comes nearest to it.

--points is a CSV file; its header says what the numbers are: x,y,z patient mm
(LPS, as in DICOM), row,col,slice or i,j,k voxels from 0; a column id is kept.

Exit code: 0 all points were served, 1 some were not or miss slices, 2 nothing
could be done. Each point that failed is a line on stderr.
"""

import functools
import pathlib
import sys
import threading

import tqdm

import mtnet_jax
from mtnet_jax.ct import dicom_seg
from mtnet_jax.ct import follow
from mtnet_jax.ct import nifti
from mtnet_jax.ct import places
from mtnet_jax.ct import points as points_lib
from mtnet_jax.ct import series
from mtnet_jax.storage import files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def _parse(argv):
  parser = command_line.parser(__doc__, 'predict')
  parser.add_argument(
    '--checkpoint',
    required=True,
    nargs='+',
    metavar='RUN',
    help='a trained run, a bundle of one, or the URL of either; of several,'
    " such as those of five folds, the average, with each one's malignancy",
  )
  parser.add_argument('--symmetries', **command_line.SYMMETRIES)
  parser.add_argument(
    '--dicom',
    required=True,
    nargs='+',
    metavar='DIR',
    help='folder of a CT series, or its files',
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
    ' lidc_nodules/all (default) or /paper',
  )
  parser.add_argument('--out', required=True, help='folder for the results')
  parser.add_argument(
    '--nifti', action='store_true', help='write the masks as NIfTI, too'
  )
  return parser.parse_args(argv)


def _load(paths, *, symmetries):
  # JAX takes seconds: bad input is told before.
  from mtnet_jax.inference import bundles
  from mtnet_jax.inference import ensemble

  models = [bundles.load(path) for path in paths]
  if len(models) == 1 and not symmetries:
    return models[0]
  return ensemble.Ensemble(models, symmetries=symmetries)


def _import_drawing():
  """Imports what draws, which brings Matplotlib and takes a second."""
  from mtnet_jax.ct import records as ct_records
  from mtnet_jax.reports import figures as figures_lib
  from mtnet_jax.reports import overlays as overlays_lib

  return figures_lib, ct_records, overlays_lib


def run(args):
  """Serves every point that can be served.

  Args:
    args: of the command line.

  Returns:
    The exit code: 0, or 1 where some points failed.

  Raises:
    errors.InputError: nothing could be done.
  """
  points = points_lib.read(args.points) if args.points else None
  volume = series.find(args.dicom, series_uid=args.series)
  if points:
    targets, faults = places.of_points(points, volume)
    faults = [(name, why, '') for name, why in points.faults] + _told(faults)
  else:
    targets, faults = places.annotated(volume, args.annotated)
    faults = _told(faults)
  if args.nifti:
    nifti.check(volume)
  if targets:
    out = _make_folder(args.out)
    model = _load(args.checkpoint, symmetries=args.symmetries)
    predict_fn = functools.partial(
      model.predict, pixel_spacing_mm=volume.pixel_spacing_mm
    )
    served, more = _walk(targets, volume, predict_fn)
    faults += _told(more)
  else:
    served = []
  cut_off = _told(
    [
      (target.target_id, error)
      for target, nodule in served
      for error in nodule.missing
    ]
  )
  for name, why, detail in faults:
    _complain(name, f'{why}{detail}')
  for name, why, detail in cut_off:
    _complain(name, f'the mask may be cut off: {why}{detail}')
  if not served:
    raise errors.InputError(
      f'none of the {len(faults)} points could be served: nothing was written.'
    )
  table = _write(out, served, faults, volume, model, with_nifti=args.nifti)
  _print(table, volume, model, out)
  return int(bool(faults or cut_off))


def _complain(name, what):
  print('error:', errors.one_line(f'point {name}: {what}'), file=sys.stderr)


def _told(faults):
  """(id, what, detail) of (id, `volume.SliceError`)."""
  return [(name, str(error), error.detail) for name, error in faults]


def _make_folder(path):
  path = pathlib.Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be written ({error.strerror}): choose another --out.'
    ) from error
  return path


def _walk(targets, volume, predict_fn):
  """[(target, nodule)] of those served, [(id, error)] of the others."""
  # While the networks compute, the interpreter has nothing to do.
  threading.Thread(target=_import_drawing, daemon=True).start()
  starts = [
    follow.Start(target.voxel, fixed=target.truth is not None)
    for target in targets
  ]
  with tqdm.tqdm(
    total=len(starts),
    desc='nodules',
    unit='nodule',
    leave=False,
    disable=None,  # shown on a terminal only
  ) as bar:
    results = follow.follow(starts, volume, predict_fn, on_done=bar.update)
  served, failed = [], []
  for target, result in zip(targets, results, strict=True):
    if isinstance(result, follow.Nodule):
      served.append((target, result))
    else:
      failed.append((target.target_id, result))
  return served, failed


def _write(out, served, faults, volume, model, *, with_nifti):
  """Writes every file; returns the records as text."""
  figures, nodule_records, overlays = _import_drawing()
  records = []
  trained = ', networks trained on SIMULATED CT' if model.simulated else ''
  for target, nodule in served:
    record = nodule_records.make(
      target, nodule, volume, trained_on_simulated=model.simulated
    )
    record['figure'] = f'{target.target_id}.png'
    picture = overlays.draw(
      [nodule_records.picture(target, nodule, record)],
      title=target.target_id + trained,
      simulated=volume.simulated,
    )
    figures.save(picture, out / record['figure'])
    records.append(record)
  masks = {t.target_id: n.pixels for t, n in served if n.pixels}
  for number, name in enumerate(masks, 1):
    (record,) = (r for r in records if r['id'] == name)
    record['segment_number'] = number
  written = _write_masks(out, masks, volume, model, with_nifti=with_nifti)
  files.write_json(
    out / 'predictions.json',
    {
      'mtnet_jax': mtnet_jax.__version__,
      'model': model.name,
      'trained_on_simulated': model.simulated,
      'series_uid': volume.series_uid,
      'simulated_ct': volume.simulated,
      'slices_rows_columns': volume.shape,
      'pixel_spacing_mm': volume.pixel_spacing_mm,
      'slice_spacing_mm': volume.slice_spacing_mm,
      'files': written,
      'points': records,
      'failed': [{'id': name, 'reason': why} for name, why, _ in faults],
    },
  )
  return nodule_records.table(records)


def _write_masks(out, masks, volume, model, *, with_nifti):
  """Names of the files that were written; those of a run before are gone."""
  seg, nii = out / 'segmentation.dcm', out / 'segmentation.nii.gz'
  for path in (seg, nii):
    path.unlink(missing_ok=True)
  if not masks:
    return []
  dicom_seg.write(
    seg,
    volume,
    masks,
    model_name=model.name,
    simulated=volume.simulated or model.simulated,
  )
  if with_nifti:
    nifti.write(nii, volume, masks)
  return [path.name for path in (seg, nii)[: 1 + with_nifti]]


def _print(table, volume, model, out):
  print(
    f'Series {volume.series_uid}'
    f' ({"SIMULATED CT" if volume.simulated else "CT"}), model {model.name},'
    f' trained on {"SIMULATED" if model.simulated else "real"} nodules.'
  )
  print(table)
  print(f'Written: {out}/predictions.json, pictures, masks')


def main(argv=None):
  return run(_parse(argv))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
