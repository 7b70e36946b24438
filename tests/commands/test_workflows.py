"""The workflows of the repository run the commands of the documentation."""

import re

import doc_pages
import main_job
import yaml

_WORKFLOW = main_job.ROOT / '.github' / 'workflows' / 'ci.yml'
_HOOKS = main_job.ROOT / '.pre-commit-config.yaml'


def _jobs():
  return yaml.safe_load(_WORKFLOW.read_text(encoding='utf-8'))['jobs']


def test_every_command_is_documented():
  page = ' '.join(doc_pages.text('docs/development.md').split())
  commands = [
    step['run']
    for job in _jobs().values()
    for step in job['steps']
    if 'run' in step
  ]
  assert len(commands) > 8
  for command in commands:
    assert command in page, command


def test_quick_tests_run_on_every_python():
  setup = (main_job.ROOT / 'setup.cfg').read_text(encoding='utf-8')
  pythons = re.findall(r'Python :: (3\.\d+)$', setup, re.MULTILINE)
  assert _jobs()['quick']['strategy']['matrix']['python'] == pythons


def test_each_nightly_job_has_its_schedule():
  text = _WORKFLOW.read_text(encoding='utf-8')
  schedules = re.findall(r"- cron: '(.+)'", text)
  # Every night but Sunday, and Sunday, when the long tests run, too.
  assert schedules == ['17 2 * * 1-6', '17 2 * * 0']
  assert schedules[1] in _jobs()['weekly']['if']
  assert 'schedule' in _jobs()['nightly']['if']


def test_hooks_lint_and_check_types():
  hooks = yaml.safe_load(_HOOKS.read_text(encoding='utf-8'))['repos']
  names = [hook['id'] for repo in hooks for hook in repo['hooks']]
  assert names == ['ruff-check', 'ruff-format', 'mypy']
