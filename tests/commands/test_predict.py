"""Tests `predict` on a series, with a model that thresholds HU."""

import os
import re
import shutil

import ct_files
import highdicom
import main_job
import numpy as np
import pages
import predict_job
import pytest

from mtnet_jax import predict
from mtnet_jax.inference import packing
from mtnet_jax.system import errors


def test_points_become_records_pictures_and_one_segmentation(
  directory, tmp_path, model, capsys
):
  assert predict_job.run(directory, tmp_path / 'out') == 0
  out = tmp_path / 'out'
  assert {p.name for p in out.iterdir()} == {
    'index.html',
    'predictions.json',
    'a.png',
    'b.png',
    'segmentation.dcm',
  }
  results = predict_job.read(out)
  assert results['series_uid'] == ct_files.SERIES_UID
  assert results['model'] == 'thresholder'
  assert results['simulated_ct'] and results['trained_on_simulated']
  assert results['failed'] == []
  assert results['made_with'] == {
    'model_fingerprint': model.fingerprint,
    'ct_files': ct_files.SHAPE[0],
    'symmetries': False,
    'annotated': None,
    'nifti': False,
  }
  for number, record in enumerate(results['points'], 1):
    ball = ct_files.sphere(ct_files.SHAPE, *predict_job.BALLS[record['id']])
    area = ball.sum(axis=(1, 2))
    assert record['mask']['volume_mm3'] == pytest.approx(
      ball.sum() * 0.7 * 0.7 * 1.5, abs=1e-3
    )
    assert record['mask']['area_mm2'] == pytest.approx(
      area[record['voxel']['slice']] * 0.49, abs=1e-3
    )
    assert record['patch_voxel']['slice'] == area.argmax()
    assert record['malignancy_probability'] == pytest.approx(
      area.max() / 4096, abs=1e-4
    )
    assert record['segment_number'] == number
    assert (out / record['figure']).read_bytes()[:4] == b'\x89PNG'
  segmentation = highdicom.seg.segread(out / 'segmentation.dcm')
  volume = segmentation.get_volume(combine_segments=False)
  for n, ball in enumerate(predict_job.BALLS.values()):
    truth = ct_files.sphere(ct_files.SHAPE, *ball)
    # highdicom begins at the highest z, so positions are compared.
    found = volume.map_indices_to_reference(np.argwhere(volume.array[..., n]))
    z, y, x = np.argwhere(truth).T
    expected = np.stack([x * 0.7, y * 0.7, z * 1.5], 1) + ct_files.ORIGIN_MM
    np.testing.assert_allclose(
      sorted(map(tuple, np.round(found, 3))),
      sorted(map(tuple, np.round(expected, 3))),
      atol=2e-3,
    )
  printed = capsys.readouterr().out
  assert 'SIMULATED CT' in printed and 'trained on SIMULATED' in printed


def test_paths_may_begin_with_a_tilde(directory, tmp_path, model, monkeypatch):
  home = tmp_path / 'home'
  home.mkdir()
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.chdir(tmp_path)
  (home / 'ct').symlink_to(directory)
  (home / 'points.csv').write_text(predict_job.POINTS)
  flags = ['--checkpoint=~/run', '--points=~/points.csv', '--out=~/out']
  assert predict.main([*flags, '--dicom=~/ct']) == 0
  assert [p['id'] for p in predict_job.read(home / 'out')['points']] == [
    'a',
    'b',
  ]
  assert not (tmp_path / '~').exists()


def test_the_page_shows_every_slice_that_was_evaluated(
  directory, tmp_path, model
):
  points = f'{predict_job.POINTS}none,40,50,2\nfar,500,1,1\n'
  assert predict_job.run(directory, tmp_path / 'out', points) == 1
  page = pages.Page(tmp_path / 'out' / 'index.html')
  assert [row[0] for row in page.rows[1:]] == ['a', 'b', 'none', 'far']
  results = predict_job.read(tmp_path / 'out')
  for row, record in zip(page.rows[1:], results['points'], strict=False):
    mask = record['mask']
    if mask['slices']:
      assert row[1] == f'{mask["diameter_mm"]:.1f}'
      assert row[3] == str(mask['slices'])
  sections = page.html.split('<article')[1:]
  for section, (centre, radius_mm) in zip(
    sections, predict_job.BALLS.values(), strict=False
  ):
    (found,) = np.nonzero(
      ct_files.sphere(ct_files.SHAPE, centre, radius_mm).any(axis=(1, 2))
    )
    # The highest slice comes first, and a slice without a mask at each end.
    shown = re.findall(r'<strong>slice (\d+), z = ([^ ]+) mm</strong>', section)
    expected = range(found[-1] + 1, found[0] - 2, -1)
    slices = [int(k) for k, _ in shown[:-1]]  # The last one is the CAM.
    assert slices == list(expected)
    for k, z in shown:
      assert float(z) == ct_files.ORIGIN_MM[2] + int(k) * ct_files.SLICE_MM
    assert section.count('class="fine"') == len(found) + 1
    assert section.count('no mask') == 2
    assert section.count('class="judged"') == 1
  # The point without a nodule has one slice and its CAM, without an outline.
  assert sections[2].count('<figure') == 2 and '<path' not in sections[2]


def test_symmetries_give_a_range_and_a_map(directory, tmp_path, model):
  assert (
    predict_job.run(
      directory, tmp_path / 'out', predict_job.POINTS, '--symmetries'
    )
    == 0
  )
  (record, _) = predict_job.read(tmp_path / 'out')['points']
  # A threshold gives the same in every orientation.
  assert len(record['malignancy_probability_members']) == 8
  assert (
    record['malignancy_probability_range']
    == [record['malignancy_probability']] * 2
  )
  assert record['mask']['volume_mm3'] == pytest.approx(
    ct_files.sphere(ct_files.SHAPE, *predict_job.BALLS['a']).sum()
    * 0.7
    * 0.7
    * 1.5,
    abs=1e-3,
  )


def test_bad_points_do_not_stop_the_others(directory, tmp_path, model, capsys):
  points = (
    predict_job.POINTS
    + 'far,500,1,1\nnan,nan,1,1\n../../up,1,1,1\nnone,40,50,2\n'
  )
  assert predict_job.run(directory, tmp_path / 'out', points) == 1
  err = capsys.readouterr().err
  lines = [line for line in err.splitlines() if 'error:' in line]
  assert len(lines) == 3
  for word in ('point far: slice 1, row 500', 'point nan', 'point row 5'):
    assert word in err
  results = predict_job.read(tmp_path / 'out')
  assert [r['id'] for r in results['points']] == ['a', 'b', 'none']
  assert results['points'][2]['status'] == 'nothing found'
  assert 'segment_number' not in results['points'][2]
  assert len(results['failed']) == 3
  # Nothing is written outside of the folder.
  assert {p.name for p in tmp_path.iterdir()} == {'out', 'out.csv'}
  assert len(list((tmp_path / 'out').iterdir())) == 6


def test_missing_slices_cut_a_mask_off(directory, tmp_path, model, capsys):
  copy = shutil.copytree(directory, tmp_path / 'ct')
  sorted(copy.iterdir(), reverse=True)[22].unlink()
  points = 'id,x,y,z\na,-5.5,-92.25,-270\nb,15.5,-78.25,-282\n'
  assert predict_job.run(copy, tmp_path / 'out', points) == 1
  assert (
    'note: point a: the mask may be cut off: the slice above z=-268.5 mm'
  ) in capsys.readouterr().err
  a, b = predict_job.read(tmp_path / 'out')['points']
  assert (a['status'], b['status']) == ('incomplete', 'ok')


def test_only_bad_points_write_nothing(directory, tmp_path, model, capsys):
  with pytest.raises(errors.InputError, match='none of the 1 points'):
    predict_job.run(directory, tmp_path / 'out', 'id,x,y,z\na,1,2,\n')
  assert 'point a: its z is missing' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists() and not model.batches


def test_without_a_mask_there_is_no_segmentation(directory, tmp_path, model):
  assert predict_job.run(directory, tmp_path / 'out') == 0
  assert (tmp_path / 'out' / 'segmentation.dcm').exists()
  # The Segmentation of the earlier run must not stay.
  assert (
    predict_job.run(directory, tmp_path / 'out', 'row,col,slice\n40,50,2\n')
    == 0
  )
  assert not (tmp_path / 'out' / 'segmentation.dcm').exists()
  files = predict_job.read(tmp_path / 'out')['files']
  assert {*files, 'predictions.json'} == {
    path.name for path in (tmp_path / 'out').iterdir()
  }


@pytest.mark.extra
def test_nifti_on_request(directory, tmp_path, model):
  nibabel = pytest.importorskip('nibabel', reason='needs the extra nifti')
  assert (
    predict_job.run(directory, tmp_path / 'out', predict_job.POINTS, '--nifti')
    == 0
  )
  image = nibabel.load(tmp_path / 'out' / 'segmentation.nii.gz')
  labels = np.asarray(image.dataobj).T
  for number, ball in enumerate(predict_job.BALLS.values(), 1):
    np.testing.assert_array_equal(
      labels == number, ct_files.sphere(ct_files.SHAPE, *ball)
    )


def test_no_secret_of_the_header_gets_out(tmp_path, model, capfd, caplog):
  """Only the Segmentation names the patient, birth date, and so on."""
  # An invalid value, a broken and a missing slice, and a point outside cause
  # warnings and errors.
  hu = ct_files.volume(*predict_job.BALLS.values())
  paths = ct_files.write(tmp_path / 'ct', hu, PatientName='SECRETNOCARET')
  paths[21].write_bytes(paths[21].read_bytes()[:-60])
  paths[10].unlink()
  capfd.readouterr()
  caplog.clear()
  points = 'x,y,z\n-5.5,-92.25,-270\n15.5,-78.25,-282\n0,0,0\n-5,-92,-268.5\n'
  assert predict_job.run(tmp_path / 'ct', tmp_path / 'out', points) == 1
  with pytest.raises(errors.InputError) as error:
    predict_job.run(tmp_path / 'ct', tmp_path / 'out2', 'x,y,z\n0,0,0\n')
  out, err = capfd.readouterr()
  texts = [out, err, caplog.text, str(error.value)]
  for path in (tmp_path / 'out').iterdir():
    if path.suffix != '.dcm':
      texts.append(path.read_bytes().decode('latin-1'))
  assert len(texts) == 4 + 4 and all(texts[:2])
  for text in texts:
    lowered = text.lower().replace(str(tmp_path).lower(), '')
    assert 'secret' not in lowered and '19310203' not in lowered
  # Only stderr may name paths; the files do not.
  assert str(tmp_path) in err
  assert str(tmp_path) not in (tmp_path / 'out/predictions.json').read_text()
  segmentation = (tmp_path / 'out' / 'segmentation.dcm').read_bytes()
  assert b'SECRETNOCARET' in segmentation


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--points=none.csv'], 'none.csv'),
    (['--annotated', '--points=x.csv'], 'not allowed with'),
    ([], 'one of the arguments --points --annotated is required'),
    (['--annotated=most'], "'most'"),
  ],
)
def test_wrong_flags(directory, tmp_path, flags, message, capsys):
  with pytest.raises((errors.InputError, SystemExit)) as error:
    predict_job.run(directory, tmp_path / 'out', None, *flags)
  assert message in str(error.value) + capsys.readouterr().err


def test_a_folder_that_cannot_be_written(directory, tmp_path, model):
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(errors.InputError, match='choose another --out'):
    predict_job.run(
      directory, tmp_path / 'file' / 'out', None, f'--points={_csv(tmp_path)}'
    )


def _csv(directory):
  path = directory / 'points.csv'
  path.write_text(predict_job.POINTS)
  return path


def test_a_checkpoint_that_is_no_run_is_named(directory, tmp_path):
  flag = f'--points={_csv(tmp_path)}'
  with pytest.raises(errors.InputError, match='RUN'):
    predict_job.run(directory, tmp_path / 'out', None, flag)
  assert not os.listdir(tmp_path / 'out')


def test_a_damaged_bundle_is_named(directory, tmp_path, made_run_dir):
  broken = tmp_path / 'bundle'
  packing.write(made_run_dir, broken)
  weights = broken / 'weights.safetensors'
  content = bytearray(weights.read_bytes())
  content[-1] ^= 1
  weights.write_bytes(content)
  out = tmp_path / 'out'
  with pytest.raises(errors.InputError) as error:
    predict.main(
      [
        f'--checkpoint={broken}',
        f'--dicom={directory}',
        f'--points={_csv(tmp_path)}',
        f'--out={out}',
      ]
    )
  assert str(error.value).startswith(f'{weights} is damaged or was changed')
  assert not os.listdir(out)


def test_several_series_or_none_are_reported_before_the_model(tmp_path, capsys):
  hu = ct_files.volume(shape=(3, 70, 70))
  ct_files.write(tmp_path / 'mixed' / 'a', hu, series_uid='1.2.3')
  ct_files.write(tmp_path / 'mixed' / 'b', hu, series_uid='1.2.4')
  ct_files.write(tmp_path / 'mr', hu, modality='MR')
  flag = f'--points={_csv(tmp_path)}'
  for name, message in (('mixed', '--series=UID'), ('mr', '3 MR images')):
    with pytest.raises(errors.InputError, match=message):
      predict_job.run(tmp_path / name, tmp_path / 'out', None, flag)
  with pytest.raises(errors.InputError, match='as x,y,z .mm. they would fit'):
    predict_job.run(
      tmp_path / 'mixed' / 'a',
      tmp_path / 'out',
      'i,j,k\n-10,-100,-298.5\n',
    )
  assert not (tmp_path / 'out').exists()


def test_bad_input_ends_in_one_line(tmp_path):
  done = main_job.run(
    main_job.module(
      'mtnet_jax.predict',
      '--checkpoint=RUN',
      f'--dicom={tmp_path}',
      '--points=none.csv',
      f'--out={tmp_path}/out',
    )
  )
  assert done.returncode == 2
  assert done.stderr == (
    'error: none.csv cannot be read: No such file or directory.\n'
  )


def test_help_explains_points_and_exit_codes(capsys):
  with pytest.raises(SystemExit):
    predict.main(['--help'])
  text = capsys.readouterr().out
  assert 'x,y,z patient mm' in text and 'i,j,k voxels' in text
  assert 'Exit code: 0' in text
