"""Tests a mask that leaks on one slice: the same sizes in all outputs."""

import ct_files
import numpy as np
import pages
import predict_job
import pytest
import seg_frames

from mtnet_jax import predict

_BALL = ((20, 40, 50), 6.0)
_LEAKING = 21
_POINTS = (
  'id,row,col,slice\n'
  'ball,40,50,20\n'
  'below,40,50,18\n'
  f'leak,40,50,{_LEAKING}\n'
  'none,40,50,2\n'
)


@pytest.fixture(scope='module')
def leaking(tmp_path_factory):
  """A ball with one slice that reaches the edge of any patch around it."""
  directory = tmp_path_factory.mktemp('leaking')
  hu = ct_files.volume(_BALL)
  hu[_LEAKING, 38:43, 50:] = ct_files.NODULE_HU
  ct_files.write(directory, hu)
  return directory


def test_sizes_agree_in_all_outputs(leaking, tmp_path, model, capsys):
  out = tmp_path / 'out'
  assert predict_job.run(leaking, out, _POINTS) == 0
  printed = capsys.readouterr()
  records = {r['id']: r for r in predict_job.read(out)['points']}
  ball = ct_files.sphere(ct_files.SHAPE, *_BALL)
  ball[_LEAKING] = False
  pixel_mm2 = ct_files.SPACING_MM**2
  volume_mm3 = ball.sum() * pixel_mm2 * ct_files.SLICE_MM
  # On slice 20, the squared distance from the centre is below 36 / 0.49 = 73.5
  # pixels. The farthest pixels are (8, 3) and (-8, -3), and the midpoints of
  # their edges are 17 and 6 pixels apart. On slice 18, 3 mm below, the limit is
  # 55.1, and the farthest pixels are (7, 2) and (-7, -2).
  diameters_px = {'ball': np.hypot(17, 6), 'below': np.hypot(15, 4)}
  for name, k in (('ball', 20), ('below', 18)):
    mask = records[name]['mask']
    assert mask['diameter_mm'] == pytest.approx(
      diameters_px[name] * ct_files.SPACING_MM, abs=1e-4
    )
    assert mask['area_mm2'] == pytest.approx(ball[k].sum() * pixel_mm2)
    assert mask['volume_mm3'] == pytest.approx(volume_mm3)
    assert mask['volume_is_lower_bound'] is True
  for name in ('leak', 'none'):
    mask = records[name]['mask']
    assert mask['diameter_mm'] is mask['area_mm2'] is mask['volume_mm3'] is None
  # The Segmentation has all slices; the measured ones give the volume.
  found = seg_frames.place(out / 'segmentation.dcm', leaking, ct_files.SHAPE)
  assert len(found) == 3
  for name in ('ball', 'below', 'leak'):
    mask = records[name]['mask']
    assert mask['unmeasured_slices'] == [_LEAKING]
    voxels = found[records[name]['segment_number']]
    assert voxels.any(axis=(1, 2)).sum() == mask['slices'] == 7
    np.testing.assert_array_equal(
      np.delete(voxels, 21, 0), np.delete(ball, 21, 0)
    )
    assert voxels[_LEAKING].sum() > 200
  # The table and the page show the same sizes.
  rows = {line.split()[0]: line.split() for line in printed.out.splitlines()}
  page = pages.Page(out / 'index.html')
  for name in ('ball', 'below'):
    diameter = f'{records[name]["mask"]["diameter_mm"]:.1f}'
    assert rows[name][1:5] == [diameter, 'mm', f'>{volume_mm3:.0f}', 'mm3']
    assert page.row(name)[:3] == [diameter, f'> {volume_mm3:.0f}', '7']
  assert rows['leak'][1:3] == rows['none'][1:3] == ['-', '-']
  assert page.row('leak')[:3] == ['not measured', 'not measured', '7']
  assert page.row('none')[:3] == ['–', '–', '–']
  assert page.html.count('no outline, not measured') == 3


def test_a_note_is_printed_once(leaking, tmp_path, model, capsys):
  predict_job.run(leaking, tmp_path / 'out', _POINTS)
  out, err = capsys.readouterr()
  assert err.splitlines() == [
    'note: points ball, below: the mask reaches the edge of its patch and is'
    ' no outline on 1 of 7 slices: these are not measured',
    "note: point leak: on the point's slice the mask reaches the edge of its"
    ' patch and is no outline: sizes are not measured',
    'note: point none: the networks mark nothing there',
  ]
  assert 'outline' not in out and 'nothing' not in out
  records = predict_job.read(tmp_path / 'out')['points']
  assert all(len(record['notes']) == 1 for record in records)


def test_a_note_on_many_points_names_a_few(directory, tmp_path, model, capsys):
  rows = [f'p{i},40,50,2' for i in range(5)]
  points = '\n'.join(['id,row,col,slice', *rows])
  predict_job.run(directory, tmp_path / 'out', points)
  assert capsys.readouterr().err == (
    'note: points p0, p1, p2 and 2 more: the networks mark nothing there\n'
  )


def test_fields_are_printed_without_other_flags(capsys):
  with pytest.raises(SystemExit) as done:
    predict.main(['--fields'])
  assert done.value.code == 0
  text = ' '.join(capsys.readouterr().out.split())
  assert 'points.mask.diameter_mm: largest in-plane distance across' in text
