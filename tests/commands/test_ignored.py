"""What the documented commands write in a clone is nothing to commit."""

import re
import shutil
import subprocess

import doc_pages
import main_job
import pytest

_FLAGS = r'--(?:out|write_dicom|workdir)[= ](?:\./)?([\w.][\w./-]*)'


@pytest.fixture(name='is_ignored')
def _is_ignored(tmp_path):
  """Function of a path in a repository with this one's .gitignore."""
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
  shown = [x for x in folders if not is_ignored(f'{x.rstrip("/")}/file')]
  assert not shown, f'.gitignore lacks {", ".join(shown)}'


def test_what_is_of_the_repository_is_not_ignored(is_ignored):
  for path in (
    'README.md',
    'mtnet_jax/shipped/lidc-small/manifest.json',
    'docs/predict.png',
  ):
    assert (main_job.ROOT / path).exists()
    assert not is_ignored(path), path
