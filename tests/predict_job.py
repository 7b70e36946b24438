"""Calls `predict`, and reads what it wrote."""

import json

from mtnet_jax import predict

BALLS = {'a': ((20, 40, 50), 6.0), 'b': ((12.3, 60, 80), 5.0)}
LIDC_SPACING_MM = 0.820312  # pixel spacing of LIDC-IDRI-0003
POINTS = 'id,row,col,slice\na,42,49,19\nb,60,80,12\n'


def run(dicom, out, points=POINTS, *flags):
  """Runs `predict` on a folder and returns its exit code.

  Args:
    dicom: the folder of the CT.
    out: the folder for the results.
    points: text of a points file; None to leave --points out.
    *flags: more flags.
  """
  if points is not None:
    out.parent.mkdir(exist_ok=True)
    path = out.with_suffix('.csv')
    path.write_text(points)
    flags = (f'--points={path}', *flags)
  return predict.main(
    ['--checkpoint=RUN', f'--dicom={dicom}', f'--out={out}', *flags]
  )


def index(*ids, **more):
  """The smallest predictions.json that counts as one of this command."""
  figures = [f'{name}.png' for name in ids]
  return {
    'mtnet_jax': '0.1.0',
    'model': 'an older one',
    'series_uid': '1.2.3',
    'slices_rows_columns': [1, 1, 1],
    'files': ['index.html', *figures],
    'points': [{'id': name, 'figure': f'{name}.png'} for name in ids],
    'failed': [],
    **more,
  }


def read(out):
  """The content of predictions.json."""
  return json.loads((out / 'predictions.json').read_text())
