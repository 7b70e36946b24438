"""The command on a series, with a model that thresholds HU."""

import json
import os
import shutil

import ct_files
import dicom_files
import highdicom
import main_job
import numpy as np
import pydicom
import pytest
import seg_frames

from mtnet_jax import predict
from mtnet_jax.ct import follow
from mtnet_jax.ct import series
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import records
from mtnet_jax.inference import bundles
from mtnet_jax.models import nets
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors
from tfds_lidc import build
from tfds_lidc.ct import pixels as dicom_pixels
from tfds_lidc.nodules import annotations

BALLS = {'a': ((20, 40, 50), 6.0), 'b': ((12.3, 60, 80), 5.0)}
_LIDC_SPACING_MM = 0.820312  # of LIDC-IDRI-0003
POINTS = 'id,row,col,slice\na,42,49,19\nb,60,80,12\n'


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('ct')
  ct_files.write(directory, ct_files.volume(*BALLS.values()))
  return directory


@pytest.fixture
def model(monkeypatch):
  model = ct_files.Model()
  monkeypatch.setattr(bundles, 'load', lambda path: model)
  return model


def _run(dicom, out, points=POINTS, *flags):
  if points is not None:
    out.parent.mkdir(exist_ok=True)
    path = out.with_suffix('.csv')
    path.write_text(points)
    flags = (f'--points={path}', *flags)
  return predict.main(
    ['--checkpoint=RUN', f'--dicom={dicom}', f'--out={out}', *flags]
  )


def _read(out):
  return json.loads((out / 'predictions.json').read_text())


def test_points_become_records_pictures_and_one_segmentation(
  directory, tmp_path, model, capsys
):
  assert _run(directory, tmp_path / 'out') == 0
  out = tmp_path / 'out'
  assert {p.name for p in out.iterdir()} == {
    'predictions.json',
    'a.png',
    'b.png',
    'segmentation.dcm',
  }
  results = _read(out)
  assert results['series_uid'] == ct_files.SERIES_UID
  assert results['model'] == 'thresholder'
  assert results['simulated_ct'] and results['trained_on_simulated']
  assert results['failed'] == []
  for number, record in enumerate(results['points'], 1):
    ball = ct_files.sphere(ct_files.SHAPE, *BALLS[record['id']])
    area = ball.sum(axis=(1, 2))
    assert record['mask']['volume_mm3'] == pytest.approx(
      ball.sum() * 0.7 * 0.7 * 1.5, abs=1e-3
    )
    assert record['mask']['area_mm2'] == pytest.approx(
      area.max() * 0.49, abs=1e-3
    )
    assert record['patch_voxel']['slice'] == area.argmax()
    assert record['malignancy'] == pytest.approx(area.max() / 4096, abs=1e-4)
    assert record['segment_number'] == number
    assert (out / record['figure']).read_bytes()[:4] == b'\x89PNG'
  segmentation = highdicom.seg.segread(out / 'segmentation.dcm')
  volume = segmentation.get_volume(combine_segments=False)
  for n, ball in enumerate(BALLS.values()):
    truth = ct_files.sphere(ct_files.SHAPE, *ball)
    # highdicom's slices come from the highest z: places are compared.
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


def test_symmetries_give_a_range_and_a_map(directory, tmp_path, model):
  assert _run(directory, tmp_path / 'out', POINTS, '--symmetries') == 0
  (record, _) = _read(tmp_path / 'out')['points']
  # What thresholds pixels does not care how the patch lies.
  assert len(record['malignancy_members']) == 8
  assert record['malignancy_range'] == [record['malignancy']] * 2
  assert record['mask']['volume_mm3'] == pytest.approx(
    ct_files.sphere(ct_files.SHAPE, *BALLS['a']).sum() * 0.7 * 0.7 * 1.5,
    abs=1e-3,
  )


def test_one_bad_point_does_not_cost_the_others(
  directory, tmp_path, model, capsys
):
  points = POINTS + 'far,500,1,1\nnan,nan,1,1\n../../up,1,1,1\nnone,40,50,2\n'
  assert _run(directory, tmp_path / 'out', points) == 1
  err = capsys.readouterr().err
  lines = [line for line in err.splitlines() if 'error:' in line]
  assert len(lines) == 3
  for word in ('point far: slice 1, row 500', 'point nan', 'point row 5'):
    assert word in err
  results = _read(tmp_path / 'out')
  assert [r['id'] for r in results['points']] == ['a', 'b', 'none']
  assert results['points'][2]['status'] == 'nothing found'
  assert 'segment_number' not in results['points'][2]
  assert len(results['failed']) == 3
  # Nothing outside of the folder.
  assert {p.name for p in tmp_path.iterdir()} == {'out', 'out.csv'}
  assert len(list((tmp_path / 'out').iterdir())) == 5


def test_missing_slices_cut_a_mask_off(directory, tmp_path, model, capsys):
  copy = shutil.copytree(directory, tmp_path / 'ct')
  sorted(copy.iterdir(), reverse=True)[22].unlink()
  points = 'id,x,y,z\na,-5.5,-92.25,-270\nb,15.5,-78.25,-282\n'
  assert _run(copy, tmp_path / 'out', points) == 1
  assert (
    'error: point a: the mask may be cut off: the slice above z=-268.5 mm'
  ) in capsys.readouterr().err
  a, b = _read(tmp_path / 'out')['points']
  assert (a['status'], b['status']) == ('incomplete', 'ok')


def test_nothing_to_be_done_writes_nothing(directory, tmp_path, model, capsys):
  with pytest.raises(errors.InputError, match='none of the 1 points'):
    _run(directory, tmp_path / 'out', 'id,x,y,z\na,1,2,\n')
  assert 'point a: its z is missing' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists() and not model.batches


def test_no_mask_no_segmentation(directory, tmp_path, model):
  assert _run(directory, tmp_path / 'out') == 0
  assert (tmp_path / 'out' / 'segmentation.dcm').exists()
  # The one of the run before must not be taken for this one's.
  assert _run(directory, tmp_path / 'out', 'row,col,slice\n40,50,2\n') == 0
  assert not (tmp_path / 'out' / 'segmentation.dcm').exists()
  assert _read(tmp_path / 'out')['files'] == []


@pytest.mark.extra
def test_nifti_on_request(directory, tmp_path, model):
  nibabel = pytest.importorskip('nibabel', reason='needs the extra nifti')
  assert _run(directory, tmp_path / 'out', POINTS, '--nifti') == 0
  image = nibabel.load(tmp_path / 'out' / 'segmentation.nii.gz')
  labels = np.asarray(image.dataobj).T
  for number, ball in enumerate(BALLS.values(), 1):
    np.testing.assert_array_equal(
      labels == number, ct_files.sphere(ct_files.SHAPE, *ball)
    )


def test_no_secret_of_the_header_gets_out(tmp_path, model, capfd, caplog):
  """Patient, birth date, ... are in the Segmentation, as in any, only."""
  # With what provokes warnings and errors: a value that is none, a broken
  # slice, a missing one, a point outside.
  hu = ct_files.volume(*BALLS.values())
  paths = ct_files.write(tmp_path / 'ct', hu, PatientName='SECRETNOCARET')
  paths[21].write_bytes(paths[21].read_bytes()[:-60])
  paths[10].unlink()
  capfd.readouterr()
  caplog.clear()
  points = 'x,y,z\n-5.5,-92.25,-270\n15.5,-78.25,-282\n0,0,0\n-5,-92,-268.5\n'
  assert _run(tmp_path / 'ct', tmp_path / 'out', points) == 1
  with pytest.raises(errors.InputError) as error:
    _run(tmp_path / 'ct', tmp_path / 'out2', 'x,y,z\n0,0,0\n')
  out, err = capfd.readouterr()
  texts = [out, err, caplog.text, str(error.value)]
  for path in (tmp_path / 'out').iterdir():
    if path.suffix != '.dcm':
      texts.append(path.read_bytes().decode('latin-1'))
  assert len(texts) == 4 + 3 and all(texts[:2])
  for text in texts:
    lowered = text.lower().replace(str(tmp_path).lower(), '')
    assert 'secret' not in lowered and '19310203' not in lowered
  # The paths on stderr are the user's own; files have none.
  assert str(tmp_path) in err
  assert str(tmp_path) not in (tmp_path / 'out/predictions.json').read_text()
  segmentation = (tmp_path / 'out' / 'segmentation.dcm').read_bytes()
  assert b'SECRETNOCARET' in segmentation


@pytest.fixture(scope='module')
def annotated(tmp_path_factory):
  """Slices of LIDC-IDRI-0003 that show its outlines, and their dataset.

  What any reader marked is bright, so that the fake model's mask is larger
  than the consensus.
  """
  root = tmp_path_factory.mktemp('annotated')
  positions = annotations.slice_positions(dicom_files.SCAN_ID)
  needed = np.searchsorted(positions, np.subtract(dicom_files.needed_z(), 0.1))
  rng = np.random.default_rng(0)
  hu = rng.integers(-920, -880, (len(needed), 512, 512)).astype(np.int16)
  for nodule in dicom_files.nodules():
    readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
    first, row, col = readers.origin
    for k, votes in enumerate(readers.masks.any(axis=0), first):
      for at in np.flatnonzero(needed == k):
        box = hu[at, row : row + votes.shape[0], col : col + votes.shape[1]]
        box[votes] = ct_files.NODULE_HU
  ct_files.write(
    root / 'ct',
    hu,
    z_mm=positions[needed],
    series_uid=dicom_files.SERIES_UID,
    PixelSpacing=[_LIDC_SPACING_MM] * 2,
  )
  build.build('all', lidc_dir=root / 'ct', data_dir=root / 'data')
  data = [
    lidc.load_split('lidc_nodules/all', split, data_dir=root / 'data')
    for split in lidc.built_splits('lidc_nodules/all', root / 'data')
  ]
  return root / 'ct', nodules_lib.concatenate(data)


def _assert_as_evaluated(out, expected, atol):
  results = {r['id']: r for r in _read(out)['points']}
  assert results.keys() == {e['nodule_id'] for e in expected}
  assert len(results) == 4
  for theirs in expected:
    ours = results[theirs['nodule_id']]
    for name in ('fine_dice', 'coarse_dice'):
      assert ours[name] == pytest.approx(theirs[name], abs=atol)
    assert ours['malignancy'] == pytest.approx(
      theirs['malignancy_probability'], abs=1e-4
    )
    assert ours['readers']['diameter_mm'] == pytest.approx(
      theirs['diameter_mm']
    )


def test_annotated_dice_is_that_of_evaluate(annotated, tmp_path, model, capsys):
  directory, data = annotated
  model.spacing_mm = _LIDC_SPACING_MM
  seen = model.predict(data.image, data.info['pixel_spacing_mm'])
  expected = records.make_records(
    data,
    {'coarse': seen.coarse_mask, 'fine': seen.mask, 'class': seen.malignancy},
  )
  # The slices beside those needed are missing, so that masks are cut off.
  assert _run(directory, tmp_path / 'out', None, '--annotated') == 1
  assert capsys.readouterr().err.count('may be cut off') >= 4
  _assert_as_evaluated(tmp_path / 'out', expected, atol=0)
  assert any(e['fine_dice'] < 1 for e in expected)
  assert all(0.5 < e['fine_dice'] != e['coarse_dice'] > 0.5 for e in expected)


@pytest.mark.slow
def test_restored_networks_give_what_evaluate_gives(
  annotated, made_run_dir, tmp_path
):
  directory, data = annotated
  config = workdir.read_config(made_run_dir)
  outputs = outputs_lib.predict(
    config,
    workdir.load_variables(made_run_dir, nets.ORDER),
    data,
    progress=lambda x: x,
  )
  expected = records.make_records(data, outputs)
  out = tmp_path / 'out'
  code = predict.main(
    [
      f'--checkpoint={made_run_dir}',
      f'--dicom={directory}',
      '--annotated',
      f'--out={out}',
    ]
  )
  assert code in (0, 1)  # random networks may mark nothing
  # One pixel in a thousand may lie on the threshold.
  _assert_as_evaluated(out, expected, atol=2e-3)
  assert _read(out)['model'] == 'made'


@dicom_files.needs_real_series
def test_a_real_series_and_its_segmentation(tmp_path, model, monkeypatch):
  model.spacing_mm = _LIDC_SPACING_MM
  out, volumes, nodules, read = tmp_path / 'out', [], {}, []
  sizes = []
  real_find, real_walk = series.find, follow.follow
  real_read = dicom_pixels.try_read_hu

  def find(*args, **kwargs):
    volumes.append(real_find(*args, **kwargs))
    return volumes[-1]

  def kept(*args, **kwargs):
    nodules.update(enumerate(real_walk(*args, **kwargs), 1))
    return list(nodules.values())

  monkeypatch.setattr(series, 'find', find)
  monkeypatch.setattr(follow, 'follow', kept)
  monkeypatch.setattr(
    dicom_pixels,
    'try_read_hu',
    lambda path: read.append(path) or real_read(path),
  )
  assert _run(dicom_files.REAL_DIR, out, None, '--annotated') == 0
  results = _read(out)
  assert results['simulated_ct'] is False and len(results['points']) == 4
  # One read of each slice that any of the four nodules needs, none of others.
  assert len(read) == len(set(read)) < len(volumes[0])

  # By pydicom alone: frames onto the source slices that they name.
  (directory,) = {p.parent for p in dicom_files.REAL_DIR.rglob('*.dcm')}
  path = out / 'segmentation.dcm'
  found = seg_frames.place(path, directory, volumes[0].shape)
  assert sorted(found) == [1, 2, 3, 4]
  # By highdicom: places in the patient.
  segmentation = highdicom.seg.segread(path)
  source = pydicom.dcmread(read[0], stop_before_pixels=True)
  assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
  assert segmentation.StudyInstanceUID == source.StudyInstanceUID
  in_patient = segmentation.get_volume(combine_segments=False)
  for number, record in enumerate(results['points'], 1):
    mask = np.zeros(volumes[0].shape, bool)
    for k, pixels in nodules[number].pixels.items():
      mask[k][tuple(pixels.T)] = True
    sizes.append(mask.sum())
    np.testing.assert_array_equal(found[number], mask)
    theirs = in_patient.map_indices_to_reference(
      np.argwhere(in_patient.array[..., number - 1])
    )
    np.testing.assert_allclose(
      sorted(map(tuple, np.round(theirs, 3))),
      sorted(volumes[0].to_mm(voxel) for voxel in np.argwhere(mask)),
      atol=2e-3,
    )
    assert record['mask']['volume_mm3'] == pytest.approx(
      mask.sum() * _LIDC_SPACING_MM**2 * 2.5, rel=1e-4
    )
  assert min(sizes) > 0 and max(sizes) > 2000


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--points=none.csv'], 'none.csv'),
    (['--annotated', '--points=x.csv'], 'not allowed with'),
    ([], 'one of the arguments --points --annotated is required'),
    (['--annotated=most'], "'most'"),
  ],
)
def test_wrong_flags(directory, tmp_path, flags, says, capsys):
  with pytest.raises((errors.InputError, SystemExit)) as error:
    _run(directory, tmp_path / 'out', None, *flags)
  assert says in str(error.value) + capsys.readouterr().err


def test_a_folder_that_cannot_be_written(directory, tmp_path, model):
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(errors.InputError, match='choose another --out'):
    _run(
      directory, tmp_path / 'file' / 'out', None, f'--points={_csv(tmp_path)}'
    )


def _csv(directory):
  path = directory / 'points.csv'
  path.write_text(POINTS)
  return path


def test_what_is_no_run_is_named(directory, tmp_path):
  flag = f'--points={_csv(tmp_path)}'
  with pytest.raises(errors.InputError, match='RUN'):
    _run(directory, tmp_path / 'out', None, flag)
  assert not os.listdir(tmp_path / 'out')


def test_a_damaged_bundle_is_named(directory, tmp_path, made_run_dir):
  broken = tmp_path / 'bundle'
  bundles.write(made_run_dir, broken)
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


def test_several_series_or_none_are_told_before_the_model(tmp_path, capsys):
  hu = ct_files.volume(shape=(3, 70, 70))
  ct_files.write(tmp_path / 'mixed' / 'a', hu, series_uid='1.2.3')
  ct_files.write(tmp_path / 'mixed' / 'b', hu, series_uid='1.2.4')
  ct_files.write(tmp_path / 'mr', hu, modality='MR')
  flag = f'--points={_csv(tmp_path)}'
  for name, says in (('mixed', '--series=UID'), ('mr', '3 MR images')):
    with pytest.raises(errors.InputError, match=says):
      _run(tmp_path / name, tmp_path / 'out', None, flag)
  with pytest.raises(errors.InputError, match='as x,y,z .mm. they would fit'):
    _run(
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
