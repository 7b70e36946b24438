"""Tests that the user's files in the output folder are never changed."""

import json
import shutil

import ct_files
import predict_job
import pytest

from mtnet_jax import predict
from mtnet_jax.ct import search
from mtnet_jax.system import errors


def _tree(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def no_model(monkeypatch):
  def load(*args, **kwargs):
    raise AssertionError('refused too late')

  monkeypatch.setattr(predict, '_load', load)


@pytest.mark.parametrize(
  ('name', 'text', 'flags'),
  [
    ('predictions.json', '{"files": ["CT.nii.gz", "notes.txt"]}', ()),
    ('predictions.json', '', ()),
    ('index.html', '<p>mine', ()),
    ('a.png', 'mine', ()),
    ('segmentation.dcm', 'mine', ()),
    pytest.param(
      'segmentation.nii.gz', 'mine', ('--nifti',), marks=pytest.mark.extra
    ),
  ],
)
def test_a_users_file_with_the_name_of_a_result_is_refused(
  directory, tmp_path, no_model, name, text, flags
):
  if flags:
    pytest.importorskip('nibabel', reason='needs the extra `nifti`')
  out = tmp_path / 'out'
  out.mkdir()
  for other in ('CT.nii.gz', 'notes.txt'):
    (out / other).write_text('mine')
  (out / name).write_text(text)
  before = _tree(out)
  with pytest.raises(errors.InputError) as error:
    predict_job.run(directory, out, predict_job.POINTS, *flags)
  assert str(error.value) == (
    f'{out / name} has the name of a result, but no earlier use of this command'
    ' is known to have written it: choose another --out, or rename it.'
  )
  assert _tree(out) == before


def test_only_files_of_an_earlier_run_are_replaced(directory, tmp_path, model):
  out = tmp_path / 'out'
  out.mkdir()
  index = predict_job.index('a', 'z', 'gone')
  index['files'] += ['notes.txt', '../kept.txt']
  (out / 'predictions.json').write_text(json.dumps(index))
  for name in ('index.html', 'a.png', 'z.png', 'notes.txt', 'other.png'):
    (out / name).write_text('old')
  (tmp_path / 'kept.txt').write_text('old')
  assert predict_job.run(directory, out) == 0
  found = _tree(out)
  assert found.keys() == {
    'index.html',
    'predictions.json',
    'a.png',
    'b.png',
    'segmentation.dcm',
    'notes.txt',
    'other.png',
  }
  assert {name for name, data in found.items() if data == b'old'} == {
    'notes.txt',
    'other.png',
  }
  assert (tmp_path / 'kept.txt').exists()


@pytest.mark.parametrize('name', ('segmentation.dcm', 'z.png', 'points'))
def test_an_input_among_the_replaced_files_is_refused(
  directory, tmp_path, no_model, name
):
  """The input has the name of a result, or an old index names it."""
  out = tmp_path / 'out'
  shutil.copytree(directory, out)
  index = predict_job.index('z')
  index['files'].append('segmentation.dcm')
  (out / 'predictions.json').write_text(json.dumps(index))
  points, flags = predict_job.POINTS, ()
  if name == 'points':
    name, points = 'z.png', None
    (out / name).write_text(predict_job.POINTS)
    flags = (f'--points={out / name}',)
  else:
    next(out.glob('*.dcm')).rename(out / name)
  before = _tree(out)
  with pytest.raises(errors.InputError) as error:
    predict_job.run(out, out, points, *flags)
  assert str(error.value) == (
    f'{out / name} is an input, which results would replace: choose another'
    ' --out.'
  )
  assert _tree(out) == before


@pytest.mark.extra
def test_a_ct_in_one_file_is_not_replaced_by_its_masks(tmp_path, no_model):
  itk = pytest.importorskip('SimpleITK', reason='needs the extra volumes')
  out = tmp_path / 'out'
  out.mkdir()
  image = itk.GetImageFromArray(ct_files.volume(*predict_job.BALLS.values()))
  image.SetSpacing((*[ct_files.SPACING_MM] * 2, ct_files.SLICE_MM))
  path = out / 'segmentation.nii.gz'
  itk.WriteImage(image, str(path))
  before = _tree(out)
  points = tmp_path / 'points.csv'
  points.write_text(predict_job.POINTS)
  flags = ['--checkpoint=RUN', f'--points={points}', f'--out={out}']
  with pytest.raises(errors.InputError, match=f'{path} is an input'):
    predict.main([f'--ct={path}', *flags])
  assert _tree(out) == before


def test_a_file_that_appears_while_networks_compute_stays(
  directory, tmp_path, model, monkeypatch
):
  out, find = tmp_path / 'out', search.find

  def slow(*args, **kwargs):
    (out / 'b.png').write_text('mine')
    return find(*args, **kwargs)

  monkeypatch.setattr(search, 'find', slow)
  with pytest.raises(errors.InputError, match='b.png has the name of a result'):
    predict_job.run(directory, out)
  assert _tree(out) == {'b.png': b'mine'}
