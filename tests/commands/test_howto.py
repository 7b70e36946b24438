"""Runs the recipes of docs/howto.md as they are written there."""

import csv
import importlib.util
import pathlib
import re
import shutil
import subprocess

import ct_files
import doc_pages
import jax
import main_job
import numpy as np
import predict_job
import pytest
import run_files

from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.storage import workdir as workdir_lib

_PAGE = 'docs/howto.md'
_DEMO = '--config=configs/mtnet.py:demo'


def _command(title, number=0):
  """Returns the arguments of `python` in a command of a recipe."""
  commands = list(doc_pages.commands(doc_pages.section(_PAGE, title)))
  assert _DEMO in commands[number]
  return commands[number]


def _at_test_size(command, data_dir, root=main_job.ROOT):
  """Returns the command as a job with the tests' networks, not the demo's.

  Flags of the command itself are kept.
  """
  _, _, *small = main_job.small_job('', data_dir)
  config = next(x for x in small if x.startswith('--config='))
  defaults = [x for x in small if x.startswith('--config.')]
  config = config.replace(str(main_job.ROOT), str(root))
  module, *flags = [config if x == _DEMO else x for x in command]
  own = {x.partition('=')[0] for x in flags}
  defaults = [x for x in defaults if x.partition('=')[0] not in own]
  position = flags.index(config) + 1
  flags[position:position] = defaults
  return main_job.module(module, *flags)


def _rows(workdir):
  with open(workdir / 'train_log.csv', newline='') as file:
    return list(csv.DictReader(file))


@pytest.mark.long
def test_only_the_classifier_is_trained(
  finished_run, phantom_data_dir, tmp_path, compiled
):
  """For two epochs with another learning rate; the coarse net is unchanged."""
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(finished_run[0])
  command = _command('Train one stage, or keep a stage that is trained')
  job = _at_test_size(command, phantom_data_dir)
  done = main_job.run(job, cwd=tmp_path, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  workdir = tmp_path / 'runs' / 'class'
  assert [(x['stage'], x['epoch']) for x in _rows(workdir)] == [
    ('class', '1'),
    ('class', '2'),
  ]
  ours, theirs = (
    run_files.leaves(workdir_lib.load_variables(x, ('coarse',)))
    for x in (workdir, finished_run[0])
  )
  assert ours.keys() == theirs.keys()
  assert all((ours[name] == theirs[name]).all() for name in ours)
  (curves,) = (workdir / 'tb' / 'class').iterdir()
  shown = {}
  for event in run_files.events(curves):
    for value in event.summary.value:
      shown.setdefault(value.tag, []).append(value.simple_value)
  assert {f'simulated/{x}' for x in ('loss', 'learning_rate', 'val_auc')} <= (
    shown.keys()
  )
  assert max(shown['simulated/learning_rate']) == pytest.approx(1e-3)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
  """A copy of the package with the recipe's augmentation; do not change it."""
  clone = tmp_path_factory.mktemp('clone')
  for name in ('mtnet_jax', 'configs'):
    shutil.copytree(
      main_job.ROOT / name,
      clone / name,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  (patch,) = doc_pages.blocks(
    doc_pages.section(_PAGE, 'A new augmentation'), 'diff'
  )
  (clone / 'noise.patch').write_text(patch)
  subprocess.run(['git', 'apply', 'noise.patch'], cwd=clone, check=True)
  return clone


def test_the_new_augmentation_is_noise_in_hu(clone):
  path = clone / 'mtnet_jax' / 'data' / 'augment.py'
  spec = importlib.util.spec_from_file_location('augment_with_noise', path)
  augment = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(augment)

  def views(noise_hu):
    return augment.training_views(
      jax.random.split(jax.random.key(0), 2),
      np.array([True, False]),
      np.full((2, 64, 64), -300, np.int16),
      np.tri(64, dtype=np.uint8)[None].repeat(2, 0),
      augmentation=augment.Augmentation(noise_hu=noise_hu),
      size=64,
      window=(-1000.0, 400.0),
    )

  (quiet, masks), (noisy, same_masks) = views(0.0), views(20.0)
  np.testing.assert_array_equal(masks, same_masks)
  # The first view is the unchanged patch.
  np.testing.assert_array_equal(quiet[0], noisy[0])
  hu = np.asarray(noisy[1] - quiet[1])[..., 0] * 700
  # Tolerances are four standard errors of 4096 draws.
  assert abs(hu.mean()) < 4 * 20 / 64
  assert hu.std() == pytest.approx(20, rel=4 / 90)


@pytest.mark.slow
def test_a_run_with_the_new_augmentation_and_wider_layers(
  clone, phantom_data_dir, compiled
):
  noise = _command('A new augmentation')
  wider = _command('Other channels')
  # One run of the coarse net, which has ASPP, tests both recipes.
  change = [x for x in wider if x.startswith('--config.')]
  assert change == ['--config.seg_net.aspp_features=96']
  job = _at_test_size(
    [*noise, *change, '--config.stages=coarse', '--config.dataset.limit=16'],
    phantom_data_dir,
    root=clone,
  )
  done = main_job.run(
    job,
    cwd=clone,
    **compiled,
    PYTHONPATH=f'{clone}:{main_job.ROOT}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  workdir = clone / 'runs' / 'noise'
  config = workdir_lib.read_config(workdir)
  assert config.augment.noise_hu == 20
  shapes = workdir_lib.load_variables(workdir, ('coarse',))
  widths = {
    x.shape[-1]
    for name, x in run_files.leaves(shapes).items()
    if re.search('aspp.*kernel', name)
  }
  assert 96 in widths


def test_columns_of_the_records_are_explained(finished_run):
  """The page lists exactly the columns that exist."""
  table = doc_pages.section(_PAGE, 'What is in records.csv')
  named = set(re.findall(r'^\| `(\w+)`', table, re.MULTILINE))
  with open(finished_run[0] / 'records.csv', newline='') as file:
    columns = next(csv.reader(file))
  assert named - set(columns) == {'malignancy_sd', 'fine_uncertainty'}
  assert set(columns) <= named
  assert records_lib.outputs_of([dict.fromkeys(columns)]) == [
    'coarse',
    'fine',
    'class',
  ]


def test_outputs_are_read_by_pandas(finished_run, tmp_path, model, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'demo').symlink_to(finished_run[0])
  ct_files.write(tmp_path / 'ct', ct_files.volume(*predict_job.BALLS.values()))
  assert predict_job.run(tmp_path / 'ct', tmp_path / 'OUT') == 0
  monkeypatch.chdir(tmp_path)
  (code,) = doc_pages.blocks(doc_pages.section(_PAGE, 'Results into pandas'))
  found = {}
  exec(code, found)  # noqa: S102
  assert len(found['records']) > 0
  assert found['records'].fine_dice.between(0, 1).all()
  assert found['log'].groupby('stage').size().to_dict() == {
    'class': 2,
    'coarse': 2,
    'fine': 2,
  }
  points = found['points'].set_index('id')
  assert points['mask.diameter_mm']['a'] == pytest.approx(12, abs=1)
  assert points['mask.diameter_mm']['b'] == pytest.approx(10, abs=1)


def test_quoted_messages_exist():
  """Messages in the table of problems are in the source."""
  table = doc_pages.section(_PAGE, 'When something goes wrong')
  quoted = re.findall(r'^\| "(.*?)"', table, re.MULTILINE)
  sources = ' '.join(
    path.read_text()
    for folder in ('mtnet_jax', 'tfds_lidc')
    for path in pathlib.Path(main_job.ROOT, folder).rglob('*.py')
  )
  # Join strings that are split over several lines.
  sources = re.sub(r"""['"]\s+f?['"]""", '', sources)
  assert len(quoted) > 5
  for message in quoted:
    for part in message.split('...'):
      assert part.strip() in sources, message


def test_the_slurm_job_is_a_valid_script():
  (script,) = doc_pages.blocks(doc_pages.text(_PAGE), 'bash')
  subprocess.run(['bash', '-n'], input=script, text=True, check=True)
  flags = set(re.findall(r'--\w+', script.partition('srun')[2]))
  assert flags == {'--config', '--workdir', '--coordinator'}
