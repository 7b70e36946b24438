"""Bundles with one damaged file and a manifest that matches it."""

import hashlib
import json

from faults import mutations
from faults import weights_targets
import yaml


def signed(case):
  """Returns the case with digests that match, if its manifest can be read."""
  found = dict(case)
  try:
    manifest = json.loads(found['bundle/manifest.json'])
    for name in manifest['files']:
      content = found[f'bundle/{name}']
      manifest['files'][name] = hashlib.sha256(content).hexdigest()
    found['bundle/manifest.json'] = json.dumps(manifest).encode()
  except (KeyError, TypeError, ValueError, RecursionError):
    pass
  return found


def damage_manifest(rng, case, other):
  """Damages the manifest, mostly its values."""
  name = 'bundle/manifest.json'
  if rng.random() < 0.2:
    data = mutations.damage(rng, case[name], other[name])
  else:
    data = mutations.damage_json(rng, case[name])
  return signed({**case, name: data})


def damage_card(rng, case, other):
  """Damages the card, or a file from which a card is made."""
  name = f'bundle/{rng.choice(("README.md", "config.json", "metrics.json"))}'
  if name.endswith('.md'):
    data = mutations.damage(rng, case[name], other[name])
  else:
    data = mutations.damage_json(rng, case[name])
  return signed({**case, name: data})


def damage_header(rng, case, other):
  """Damages the weights, mostly their header."""
  name = 'bundle/weights.safetensors'
  data = weights_targets.damage_safetensors(rng, case[name], other[name])
  return signed({**case, name: data})


def read(folder):
  """Reads a bundle and makes its card, which must be safe to display."""
  from mtnet_jax.inference import front_matter
  from mtnet_jax.models import nets
  from mtnet_jax.storage import bundle_files
  from mtnet_jax.storage import texts

  folder = folder / 'bundle'
  with bundle_files.damage(folder):
    bundle = bundle_files.read(folder, check_variables=nets.check_variables)
    assert texts.is_name(bundle.name)
    assert bundle.card.replace('\n', '').isprintable()
    readme = front_matter.readme(bundle)
  assert '\x1b' not in readme
  assert '\n<' not in readme
  # The Hub reads the text between the first two lines of dashes.
  tree = yaml.safe_load(readme.split('---\n')[1])
  assert tree['library_name'] == 'mtnet_jax' and len(tree) <= 6
