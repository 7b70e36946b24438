"""Tests one writer at a time, one set of results, and bounded memory."""

import gc
import json
import weakref

import predict_job
import pytest

from mtnet_jax import predict
from mtnet_jax.reports import nodule_page
from mtnet_jax.storage import together
from mtnet_jax.system import errors


def test_a_second_process_in_the_same_folder_is_refused(
  directory, tmp_path, model
):
  out = tmp_path / 'out'
  out.mkdir()
  with together.one_writer(out):
    with pytest.raises(errors.BusyError, match='another process'):
      predict_job.run(directory, out)
    assert [path.name for path in out.iterdir()] == ['.mtnet_jax-lock']
  assert predict_job.run(directory, out) == 0


def test_an_interrupted_run_is_mended_first(
  directory, tmp_path, model, monkeypatch
):
  out = tmp_path / 'out'
  old = out / '.predictions.json.mtnet_jax-files-old'
  old.mkdir(parents=True)
  (old / 'predictions.json').write_text(json.dumps(predict_job.index('z')))
  (old / 'z.png').write_text('old')
  (out / '.predictions.json.mtnet_jax-files-new').mkdir()

  def refuse(*args, **kwargs):
    raise errors.InputError('no model')

  with monkeypatch.context() as patch:
    patch.setattr(predict, '_load', refuse)
    with pytest.raises(errors.InputError, match='no model'):
      predict_job.run(directory, out)
  assert {path.name for path in out.iterdir()} == {'predictions.json', 'z.png'}
  assert predict_job.run(directory, out) == 0
  assert not (out / 'z.png').exists()


def test_no_patch_outlives_its_picture(directory, tmp_path, model, monkeypatch):
  alive, draw = [], nodule_page.draw

  def spy(nodule):
    gc.collect()
    assert not [1 for patch in alive if patch() is not None]
    alive.extend(weakref.ref(one.hu) for one in nodule.slices)
    return draw(nodule)

  monkeypatch.setattr(nodule_page, 'draw', spy)
  assert predict_job.run(directory, tmp_path / 'out') == 0
  assert len(alive) > len(predict_job.BALLS) > 1
