"""Tests `predict` when something is missing, doubtful or fails."""

import ct_files
import numpy as np
import predict_job
import pytest

from mtnet_jax import predict
from mtnet_jax.reports import figures
from mtnet_jax.system import errors


@pytest.mark.parametrize(
  ('tags', 'tag'),
  (
    ({'SliceThickness': None}, 'SliceThickness'),
    ({'FrameOfReferenceUID': None}, 'FrameOfReferenceUID'),
    ({'StudyInstanceUID': lambda k: f'1.2.{k + 1}'}, 'StudyInstanceUID'),
  ),
)
def test_without_a_segmentation_the_other_files_are_written(
  directory, tmp_path, model, tags, tag, capsys
):
  out = tmp_path / 'out'
  assert predict_job.run(directory, out) == 0
  whole = predict_job.read(out)
  hu = ct_files.volume(*predict_job.BALLS.values())
  ct_files.write(tmp_path / 'ct', hu, **tags)
  points = predict_job.POINTS.splitlines()
  assert predict_job.run(tmp_path / 'ct', out, '\n'.join(points[:2])) == 1
  assert 'note: no DICOM Segmentation: the CT' in capsys.readouterr().err
  found = predict_job.read(out)
  assert tag in found['notes'][0]
  assert found['points'][0]['mask'] == whole['points'][0]['mask']
  # The files of the first run are gone, such as its second point's picture.
  assert {p.name for p in out.iterdir()} == {
    'a.png',
    'index.html',
    'predictions.json',
  }
  assert 'no DICOM Segmentation' in (out / 'index.html').read_text()


def test_a_failure_keeps_the_earlier_results(
  directory, tmp_path, model, monkeypatch
):
  """Pictures of one run must not be beside numbers of another."""
  out = tmp_path / 'out'
  assert predict_job.run(directory, out) == 0
  before = {p.name: p.read_bytes() for p in out.iterdir()}
  (out / 'mine.txt').write_text('mine')
  save = figures.save

  def once(figure, path):
    if path.name == 'b.png':
      raise errors.InputError('the disk is full')
    save(figure, path)

  monkeypatch.setattr(figures, 'save', once)
  with pytest.raises(errors.InputError, match='full'):
    predict_job.run(directory, out)
  assert {p.name: p.read_bytes() for p in out.iterdir()} == {
    **before,
    'mine.txt': b'mine',
  }


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    # The intercept of -1024 is lost, or half of an intercept of -1000.
    (lambda hu: hu + 1024, 'no value below -500 HU'),
    (lambda hu: hu + 500, 'no value below -500 HU'),
    (lambda hu: np.where(hu == hu[3, 5, 5], 31743, hu), 'above 20000 HU'),
  ),
)
def test_values_that_may_not_be_hu_are_noted(
  tmp_path, model, change, message, capsys
):
  hu = change(ct_files.volume(*predict_job.BALLS.values()))
  ct_files.write(tmp_path / 'ct', hu)
  assert predict_job.run(tmp_path / 'ct', tmp_path / 'out') in (0, 1)
  (note,) = predict_job.read(tmp_path / 'out')['notes']
  assert message in note and f'note: {note}' in capsys.readouterr().err


def test_points_that_are_ras_are_recognised(tmp_path, model):
  """The nodule is at the mirrored point, and both points are inside."""
  # The origin is in the middle of the slice, so that both points are inside.
  k, row, col = 20, 60, 60
  hu = ct_files.volume(((k, row, col), 6.0), shape=(40, 200, 220))
  centre = [-0.7 * hu.shape[2] / 2, -0.7 * hu.shape[1] / 2]
  ct_files.write(
    tmp_path / 'ct',
    hu,
    ImagePositionPatient=lambda k: [*centre, -300 + 1.5 * k],
  )
  x, y, z = centre[0] + 0.7 * col, centre[1] + 0.7 * row, -300 + 1.5 * k
  for header, is_noted in (('x,y,z', True), ('r,a,s', False)):
    text = f'{header}\n{-x},{-y},{z}\n'
    assert predict_job.run(tmp_path / 'ct', tmp_path / 'out', text) == 0
    results = predict_job.read(tmp_path / 'out')
    assert (
      any('call the columns r,a,s' in x for x in results['notes']) == is_noted
    )
    assert (results['points'][0]['status'] == 'ok') != is_noted


def test_a_localizer_is_left_out_and_noted(directory, tmp_path, model, capsys):
  hu = ct_files.volume(*predict_job.BALLS.values())
  ct_files.write(tmp_path / 'ct', hu)
  ct_files.write(
    tmp_path / 'scout',
    hu[:1, :, :64],
    SOPInstanceUID='1.2.77',
    ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
    ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
  )
  for name in ('ct', 'scout'):
    for path in (tmp_path / name).iterdir():
      path.replace(tmp_path / f'{name}-{path.name}')
  assert predict_job.run(tmp_path, tmp_path / 'out') == 0
  assert 'note: images left out' in capsys.readouterr().err
  assert predict_job.run(directory, tmp_path / 'plain') == 0
  found, plain = (predict_job.read(tmp_path / x) for x in ('out', 'plain'))
  assert found['points'] == plain['points']


@pytest.mark.extra
def test_a_ct_in_one_file(directory, tmp_path, model, capsys):
  """The results are those of the DICOM files."""
  itk = pytest.importorskip('SimpleITK', reason='needs the extra volumes')
  hu = ct_files.volume(*predict_job.BALLS.values())
  image = itk.GetImageFromArray(hu)
  image.SetSpacing((*[ct_files.SPACING_MM] * 2, ct_files.SLICE_MM))
  image.SetOrigin(ct_files.ORIGIN_MM)
  # NIfTI files often have this orientation.
  path = tmp_path / f'{ct_files.SERIES_UID}.nii.gz'
  itk.WriteImage(itk.DICOMOrient(image, 'RAS'), str(path))
  points = tmp_path / 'points.csv'
  points.write_text(predict_job.POINTS)
  flags = [f'--points={points}', '--checkpoint=thresholder']
  out = tmp_path / 'file'
  assert predict.main([f'--ct={path}', f'--out={out}', *flags]) == 0
  assert predict_job.run(directory, tmp_path / 'dicom') == 0
  found, dicom = (predict_job.read(x) for x in (out, tmp_path / 'dicom'))
  for ours, theirs in zip(found['points'], dicom['points'], strict=True):
    assert {**ours, 'simulated_ct': True} == theirs
  assert found['notes'] == []
  assert found['series_uid'] == ct_files.SERIES_UID
  labels = itk.GetArrayFromImage(
    itk.ReadImage(str(out / 'segmentation.nii.gz'))
  )
  balls = sum(
    number * ct_files.sphere(ct_files.SHAPE, *ball)
    for number, ball in enumerate(predict_job.BALLS.values(), 1)
  )
  np.testing.assert_array_equal(labels[:, ::-1, ::-1], balls)
  assert 'segmentation.dcm' not in {p.name for p in out.iterdir()}
  with pytest.raises(SystemExit):
    predict.main([f'--ct={path}', f'--out={out}', '--annotated', *flags[1:]])
  assert 'needs the DICOM files' in capsys.readouterr().err
