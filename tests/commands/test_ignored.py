"""Git ignores what the documented commands write in a clone."""

import re
import shutil
import subprocess

import doc_pages
import main_job
import pytest

_FLAGS = r'--(?:out|write_dicom|workdir)[= ](?:\./)?([\w.][\w./-]*)'


@pytest.fixture(name='is_ignored')
def _is_ignored(tmp_path):
  """Function (path): whether a repository with our .gitignore ignores it."""
  if shutil.which('git') is None:
    pytest.skip('needs git')
  shutil.copy(main_job.ROOT / '.gitignore', tmp_path)
  subprocess.run(['git', 'init', '-q', tmp_path], check=True)

  def is_ignored(path):
    command = ['git', '-C', tmp_path, 'check-ignore', '-q', path]
    return subprocess.run(command, check=False).returncode == 0

  return is_ignored


def test_outputs_of_the_commands_are_ignored(is_ignored):
  folders = set()
  for page in doc_pages.GUIDES:
    folders.update(re.findall(_FLAGS, doc_pages.text(page)))
  assert {'OUT', 'runs/demo'} <= folders
  visible = [x for x in folders if not is_ignored(f'{x.rstrip("/")}/file')]
  assert not visible, f'.gitignore lacks {", ".join(visible)}'


def test_files_of_the_repository_are_not_ignored(is_ignored):
  for path in (
    'README.md',
    'mtnet_jax/shipped/lidc-small/manifest.json',
    'docs/predict.png',
  ):
    assert (main_job.ROOT / path).exists()
    assert not is_ignored(path), path
