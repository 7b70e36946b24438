"""Tests which files in a folder count as results of an earlier run."""

import json
import os

import predict_job
import pytest

from mtnet_jax.ct import out_folder
from mtnet_jax.system import errors

_EXISTING = ('index.html', 'a.png', 'b.png', 'segmentation.dcm', 'notes.txt')
_HEADER = 'series_uid,patient_id,folder,nodule_id,status,simulated_ct\n'


def _fill(folder, index):
  for name in _EXISTING:
    (folder / name).write_text('')
  text = index if isinstance(index, str) else json.dumps(index)
  (folder / 'predictions.json').write_text(text)


def _without(name):
  index = predict_job.index('a')
  del index[name]
  return index


@pytest.mark.parametrize(
  ('index', 'own'),
  [
    (predict_job.index('a'), {'index.html', 'a.png'}),
    (predict_job.index('a', made_with={}), {'index.html', 'a.png'}),
    # The first version had masks in `files`, and pictures in the records only.
    (
      predict_job.index('a', files=['segmentation.dcm']),
      {'segmentation.dcm', 'a.png'},
    ),
    # The next version had pictures in `files`, and no page.
    (predict_job.index('b', files=['b.png']), {'b.png'}),
    # Files that `predict` never writes, or in other folders, do not count.
    (predict_job.index(files=['notes.txt', 'b.png', '/etc/hosts', '']), set()),
    (predict_job.index('../a', 'c\0', 'none', '.'), {'index.html'}),
  ],
)
def test_files_that_predict_gives_and_the_index_names(tmp_path, index, own):
  _fill(tmp_path, index)
  assert out_folder.series_files(tmp_path) == {'predictions.json', *own}


@pytest.mark.parametrize(
  'index',
  [
    {'files': list(_EXISTING)},
    *map(_without, ('mtnet_jax', 'model', 'series_uid', 'files', 'points')),
    predict_job.index('a', files=[5]),
    predict_job.index('a', files=[['a.png']]),
    predict_job.index('a', files=None),
    predict_job.index('a', points=None),
    predict_job.index('a', points=['a']),
    predict_job.index('a', mtnet_jax=1),
    [],
    None,
    '[',
    '[' * 100_000,
  ],
  ids=lambda index: str(index)[:30],
)
def test_an_index_of_another_tool_is_ignored(tmp_path, index):
  _fill(tmp_path, index)
  assert out_folder.read_index(tmp_path) is None
  assert out_folder.series_files(tmp_path) == set()


def test_folders_and_pipes_do_not_count(tmp_path):
  index = predict_job.index('a', 'b')
  (tmp_path / 'predictions.json').write_text(json.dumps(index))
  (tmp_path / 'a.png').mkdir()
  os.mkfifo(tmp_path / 'b.png')
  assert out_folder.series_files(tmp_path) == {'predictions.json'}
  (tmp_path / 'predictions.json').unlink()
  for name in ('predictions.json', 'predictions.csv'):
    os.mkfifo(tmp_path / name)
  assert out_folder.series_files(tmp_path) == set()
  assert out_folder.summary_files(tmp_path) == set()


@pytest.mark.parametrize(
  ('table', 'own'),
  [
    (_HEADER, {'predictions.csv', 'index.html'}),
    (_HEADER.replace(',', ';'), set()),
    ('id,' + _HEADER, set()),
    (_HEADER[:20], set()),
    ('', set()),
  ],
)
def test_a_table_is_recognised_by_its_header(tmp_path, table, own):
  (tmp_path / 'index.html').write_text('')
  (tmp_path / 'a.png').write_text('')
  assert out_folder.summary_files(tmp_path) == set()
  (tmp_path / 'predictions.csv').write_text(table)
  assert out_folder.summary_files(tmp_path) == own
  if own:
    out_folder.check_summary_folder(tmp_path)
  else:
    with pytest.raises(
      errors.InputError, match='predictions.csv has the name of a result'
    ):
      out_folder.check_summary_folder(tmp_path)


def test_an_input_is_recognised_under_any_name(tmp_path):
  """It may be a symbolic or hard link, or be reached by another path."""
  out = tmp_path / 'out'
  out.mkdir()
  _fill(out, predict_job.index('a'))
  (tmp_path / 'alias').symlink_to(out)
  (tmp_path / 'link').symlink_to(out / 'a.png')
  os.link(out / 'a.png', tmp_path / 'second')

  def check(*inputs):
    (out / 'segmentation.dcm').unlink(missing_ok=True)
    out_folder.check_series_folder(
      out, ['a'], inputs, segmentation=True, nifti=True
    )

  check(tmp_path / 'gone', out / 'b.png', out / 'notes.txt')
  for path in ('out/a.png', 'alias/a.png', 'link', 'second'):
    with pytest.raises(errors.InputError, match='a.png is an input'):
      check(tmp_path / path)
