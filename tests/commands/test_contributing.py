"""The worked examples of CONTRIBUTING.md, applied as they stand there."""

import json
import shutil
import subprocess
import sys

import doc_pages
import main_job
import numpy as np
import pytest
import run_files
from safetensors import numpy as safetensors_numpy
import weights_made_up

_PAGE = 'CONTRIBUTING.md'


def _example(title):
  """The patch and the commands below a title of the third level."""
  section = doc_pages.section(_PAGE, 'Worked examples')
  (text,) = (
    part.partition('\n')[2]
    for part in section.split('\n### ')[1:]
    if part.startswith(f'{title}\n')
  )
  (patch,) = doc_pages.blocks(text, 'diff')
  return patch, [*doc_pages.commands(text)]


@pytest.fixture
def changed(tmp_path):
  """Title of an example -> a folder of the packages with its patch."""

  def make(title):
    clone = tmp_path / 'clone'
    for name in ('mtnet_jax', 'configs'):
      shutil.copytree(
        main_job.ROOT / name,
        clone / name,
        ignore=shutil.ignore_patterns('__pycache__'),
      )
    (clone / 'example.patch').write_text(_example(title)[0])
    subprocess.run(['git', 'apply', 'example.patch'], cwd=clone, check=True)
    return clone

  return make


def _python(clone, code, *arguments):
  """What code prints as JSON, run with the packages of a clone."""
  done = main_job.run(
    [sys.executable, '-c', code, *map(str, arguments)],
    cwd=clone,
    PYTHONPATH=f'{clone}:{main_job.ROOT}:{main_job.ROOT / "tests"}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout)


def test_every_example_is_checked():
  section = doc_pages.section(_PAGE, 'Worked examples')
  assert [part.partition('\n')[0] for part in section.split('\n### ')[1:]] == [
    'A stage that reads another stage',
    'A baseline',
    'A source of public weights',
    'A table of the report',
  ]


def test_class_net_reads_the_fine_mask(changed):
  title = 'A stage that reads another stage'
  found = _python(
    changed(title),
    """
import json, runpy
import jax.numpy as jnp
from mtnet_jax.models import chain, strategies
from mtnet_jax.training import stages
config = runpy.run_path('configs/mtnet.py')['get_config']('test')
config.strategy = 'reread'
made = stages.make_stages(config)
ones = jnp.ones((1, 4, 4, 1))
logits = {'coarse': -ones, 'fine': ones}
images = jnp.zeros((1, 4, 4, 3))
_, mask = chain.stage_inputs('fine_mask', images, logits, coarse_mask='hard')
print(json.dumps({
  'stages': [(stage.name, stage.inputs) for stage in made],
  'upstream': strategies.upstream_names('reread', 'class'),
  'mask': float(mask.min()),
}))
""",
  )
  assert found == {
    'stages': [['coarse', 'nothing'], ['fine', 'mask'], ['class', 'fine_mask']],
    'upstream': ['coarse', 'fine'],
    # The fine mask is full, the coarse one empty.
    'mask': 1.0,
  }
  ((module, *flags),) = _example(title)[1]
  assert module == 'mtnet_jax.main' and '--config.strategy=reread' in flags


def test_the_baseline_has_the_budget_of_both_seg_nets(changed):
  title = 'A baseline'
  found = _python(
    changed(title),
    """
import json, runpy
import jax
import jax.numpy as jnp
from mtnet_jax.models import nets
from mtnet_jax.storage import config_values
sweep = runpy.run_path('configs/baselines.py')['get_config']('table1,test')
base = sweep.base.copy_and_resolve_references().unlock()
epochs = base.coarse_stage.epochs + base.fine_stage.epochs
point = sweep.points['full_resolution']
base.strategy = point.strategy
config_values.check(base.to_dict())
(net,) = nets.make_nets(base).values()
(logits, taps), _ = jax.eval_shape(
  lambda x: net.init_with_output(jax.random.key(0), x, train=False),
  jnp.zeros((2, 10, 12, 3)),
)
print(json.dumps({
  'same': point.fine_stage.epochs == epochs,
  'title': sweep.titles['full_resolution'],
  'logits': [logits.shape, str(logits.dtype)],
  'taps': {name: x.shape for name, x in taps.items()},
}))
""",
  )
  assert found == {
    'same': True,
    'title': 'convolutions at full resolution',
    'logits': [[2, 10, 12, 1], 'float32'],
    'taps': {
      'block1': [2, 10, 12, 16],
      'block2': [2, 10, 12, 32],
      'block3': [2, 10, 12, 32],
    },
  }


def test_weights_inside_another_module_are_read(changed, tmp_path):
  arrays, _ = weights_made_up.tensors('torch_deeplab')
  (tmp_path / 'plain').mkdir()
  plain = weights_made_up.load(
    'torch_deeplab',
    weights_made_up.write('torch_deeplab', tmp_path / 'plain', arrays),
  )
  inside = {f'model.{name}': array for name, array in arrays.items()}
  path = tmp_path / 'inside.safetensors'
  safetensors_numpy.save_file(
    {**inside, 'loss.weight': np.ones(2, np.float32)}, path
  )
  read = tmp_path / 'read.safetensors'
  title = _python(
    changed('A source of public weights'),
    """
import json, sys
import run_files, weights_made_up
from safetensors import numpy as safetensors_numpy
from mtnet_jax import pretrained
from mtnet_jax.weights import sources
net = weights_made_up.mtnet.CoarseSegNet(**weights_made_up.SEG)
weights = pretrained.load_deeplab(sys.argv[1], net)
safetensors_numpy.save_file(run_files.leaves(weights.variables), sys.argv[2])
source, _ = sources.recognise(list(safetensors_numpy.load_file(sys.argv[1])))
print(json.dumps(source.title))
""",
    path,
    read,
  )
  assert title == 'PyTorch DeepLabv3+ Xception-65, in a LightningModule'
  found = safetensors_numpy.load_file(read)
  expected = run_files.leaves(plain.variables)
  assert found.keys() == expected.keys() and len(found) > 100
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_table_is_in_the_report(changed, finished_run, tmp_path):
  clone = changed('A table of the report')
  found = _python(
    clone,
    """
import json
from mtnet_jax.reports import run_tables, tables
records = [
  {'pixel_spacing_mm': 0.5, 'coarse_predicted': 40, 'fine_predicted': 20,
   'fine_truth': 16},
  {'pixel_spacing_mm': 1.0, 'coarse_predicted': 10, 'fine_predicted': 9,
   'fine_truth': 8},
]
table = run_tables.mask_sizes(records, tables.network_names())
print(json.dumps([[row.title, *row.cells] for row in table.rows]))
""",
  )
  # (40 / 4 + 10) / 2, (20 / 4 + 9) / 2, (16 / 4 + 8) / 2.
  assert found == [
    ['Coarse Seg-net', '10.0'],
    ['Fine Seg-net', '7.0'],
    ['readers', '6.0'],
  ]
  run = tmp_path / 'runs' / 'demo'
  shutil.copytree(finished_run[0], run)
  ((module, *flags),) = _example('A table of the report')[1]
  done = main_job.run(
    [sys.executable, '-m', module, *flags],
    cwd=tmp_path,
    PYTHONPATH=f'{clone}:{main_job.ROOT}',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert (run / 'report' / 'mask-sizes.csv').exists()
  page = (run / 'report' / 'index.html').read_text()
  assert 'mean area of the masks' in page
