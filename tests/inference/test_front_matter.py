"""The metadata of a model card for the Hugging Face Hub is valid YAML."""

import json
import shutil
import sys

from hypothesis import given
from hypothesis import strategies
import pytest
import yaml

import mtnet_jax
from mtnet_jax import bundle
from mtnet_jax.inference import front_matter
from mtnet_jax.inference import packing
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import shipped
from mtnet_jax.system import errors


def _split(readme):
  """Splits a README.md into the metadata, parsed, and the card."""
  before, tree, rest = readme.split('---\n', 2)
  assert not before and rest.startswith('\n')
  return yaml.safe_load(tree), rest[1:]


def _values(result):
  return [metric['value'] for metric in result['metrics']]


def test_the_hub_reads_the_results_of_the_card(packed):
  tree, rest = _split((packed / 'README.md').read_text())
  assert rest == mtnet_jax.load(packed).card
  assert tree['license'] == 'unknown'
  assert tree['library_name'] == 'mtnet_jax'
  assert tree['pipeline_tag'] == 'image-segmentation'
  assert tree['datasets'] == ['LIDC-IDRI']
  assert {'jax', 'segmentation', 'simulated'} <= set(tree['tags'])
  (index,) = tree['model-index']
  assert index['name'] == 'made'
  masks, malignancy = index['results']
  assert masks['task']['type'] == 'image-segmentation'
  assert malignancy['task']['type'] == 'image-classification'
  for result in (masks, malignancy):
    assert result['dataset'] == {
      'type': 'LIDC-IDRI',
      'name': 'SIMULATED CT of LIDC-IDRI nodules, lidc_nodules/phantom',
      'config': 'lidc_nodules/phantom',
      'split': 'test',
    }
  test = json.loads((packed / 'metrics.json').read_text())['test']
  order = ('dice', 'jaccard', 'accuracy', 'recall', 'specificity')
  assert [metric['type'] for metric in masks['metrics']] == 2 * [*order]
  assert _values(masks) == [
    round(100 * test['segmentation'][network][key]['value'], 1)
    for network in ('coarse', 'fine')
    for key in order
  ]
  assert [metric['type'] for metric in malignancy['metrics']] == [
    'accuracy',
    'roc_auc',
    'recall',
    'specificity',
  ]
  assert _values(malignancy) == [
    round(100 * test['classification'][key]['value'], 1)
    for key in ('accuracy', 'auc', 'sensitivity', 'specificity')
  ]
  # The Hub merges results of one task, so names must distinguish them.
  names = [x['name'] for r in index['results'] for x in r['metrics']]
  assert len(set(names)) == len(names)
  assert 'Fine Seg-net DI (%)' in names and 'Class-net AUC (%)' in names


def test_the_shipped_model_has_the_licence_of_the_project():
  readme = (shipped.folder_of('lidc-small') / 'README.md').read_text()
  found = bundle_files.read(shipped.folder_of('lidc-small'))
  assert readme == front_matter.readme(found)
  tree, rest = _split(readme)
  assert rest == found.card
  assert tree['license'] == found.metrics['license'] == 'apache-2.0'
  assert 'simulated' not in tree['tags'] and 'SIMULATED' not in str(tree)
  masks, malignancy = tree['model-index'][0]['results']
  # The results in docs/models.md.
  assert _values(masks)[0::5] == [88.1, 88.7]
  assert _values(malignancy) == [83.0, 91.4, 81.2, 84.4]


@pytest.mark.extra
def test_the_hub_s_own_library_reads_it():
  hub = pytest.importorskip('huggingface_hub', reason='needs the extra `hf`')
  readme = (shipped.folder_of('lidc-small') / 'README.md').read_text()
  data = hub.ModelCard(readme).data
  assert (data.license, data.model_name) == ('apache-2.0', 'lidc-small')
  assert data.pipeline_tag == 'image-segmentation'
  assert data.datasets == ['LIDC-IDRI']
  assert len(data.eval_results) == 14
  last = data.eval_results[-3]
  assert (last.task_type, last.metric_type) == (
    'image-classification',
    'roc_auc',
  )
  assert (last.metric_value, last.dataset_split) == (91.4, 'test')
  assert last.metric_name == 'Class-net AUC (%)'
  # It writes the same metadata.
  again = yaml.safe_load(data.to_yaml())
  assert again == _split(readme)[0]


@pytest.mark.parametrize(
  'text',
  [
    'x"\n---\n# Approved\n---\n',
    'a: [b, {c: d}] # \'e\' - !!python/object:os.system "f"',
    '\\" é 肺结节 \U0001fac1 \\u0041 %s {name} &a *a |\t> ~',
    '\x1b[2J\x00\x85\u2028\ufeff',
  ],
)
def test_no_text_escapes_its_place(made_model, text):
  config = made_model.config.copy_and_resolve_references()
  with config.unlocked():
    config.dataset.name = text
  tree, rest = _split(
    front_matter.front_matter(text, config, made_model.metrics)
  )
  assert rest == ''
  assert tree.keys() == {
    'license',
    'library_name',
    'pipeline_tag',
    'tags',
    'datasets',
    'model-index',
  }
  (index,) = tree['model-index']
  assert index['name'] == text
  for result in index['results']:
    assert result['dataset']['config'] == text
    assert result['dataset']['name'].endswith(f' nodules, {text}')


@given(strategies.text())
def test_every_text_is_read_back(text):
  assert yaml.safe_load(f'- {front_matter._scalar(text)}') == [text]


@pytest.mark.parametrize('undefined', [None, float('nan'), float('inf')])
def test_undefined_results_are_left_out(made_model, undefined):
  metrics = json.loads(json.dumps(made_model.metrics))
  test = metrics['test']
  test['classification']['auc'] = {'value': undefined, 'ci95': None}
  del test['segmentation']['coarse']
  text = front_matter.front_matter('made', made_model.config, metrics)
  masks, malignancy = _split(text)[0]['model-index'][0]['results']
  assert len(_values(masks)) == 5 and len(_values(malignancy)) == 3
  test['segmentation'] = {}
  del test['classification']
  text = front_matter.front_matter('made', made_model.config, metrics)
  assert 'model-index' not in _split(text)[0]


def test_a_string_in_place_of_a_number_is_refused(made_model):
  metrics = json.loads(json.dumps(made_model.metrics))
  metrics['test']['classification']['auc']['value'] = '"\n---\n'
  with pytest.raises(TypeError):
    front_matter.front_matter('made', made_model.config, metrics)


def test_a_licence_stays_with_a_bundle(packed, tmp_path, monkeypatch):
  argv = ['bundle', f'--run={packed}', f'--out={tmp_path}/one']
  monkeypatch.setattr(sys, 'argv', [*argv, '--license=cc-by-4.0'])
  bundle.main()
  packing.write(tmp_path / 'one', tmp_path / 'two')
  packing.write(tmp_path / 'two', tmp_path / 'three', license='other')
  found = [
    _split((tmp_path / name / 'README.md').read_text())[0]['license']
    for name in ('one', 'two', 'three')
  ]
  assert found == ['cc-by-4.0', 'cc-by-4.0', 'other']


@pytest.mark.parametrize(
  'license', ['Apache-2.0', 'a b', '', 'x' * 41, 'a\nb', '-', '"', 'мит']
)
def test_a_text_that_is_no_licence_is_refused(made_run_dir, tmp_path, license):
  with pytest.raises(errors.InputError, match='--license: .*apache-2.0') as e:
    packing.write(made_run_dir, tmp_path / 'out', license=license)
  assert '\n' not in str(e.value)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('readme', 'shown'),
  [
    ('# MT-Net `old`\n\nA card.\n', '# MT-Net `old`\n\nA card.\n'),
    ('---\nlicense: mit\n---\n\n# A\n\n---\n\nB\n', '# A\n\n---\n\nB\n'),
    ('---\nNo end\n', '---\nNo end\n'),
    ('# A\n---\nlicense: mit\n---\n', '# A\n---\nlicense: mit\n---\n'),
  ],
)
def test_a_model_s_card_has_no_metadata(packed, tmp_path, readme, shown):
  """Bundles of earlier versions have none. Checksums cover the whole file."""
  copy = shutil.copytree(packed, tmp_path / 'copy')
  (copy / 'README.md').write_text(readme)
  manifest = json.loads((copy / 'manifest.json').read_text())
  digest = bundle_files.file_digest(copy / 'README.md')
  manifest['files']['README.md'] = digest
  (copy / 'manifest.json').write_text(json.dumps(manifest))
  found = bundle_files.read(copy)
  assert found.card == shown
