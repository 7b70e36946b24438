"""Guards of model cards, which people and the Hugging Face Hub read."""

from faults import guard

GUARDS = (
  guard.Guard(
    'mtnet_jax/inference/front_matter.py',
    '  quoted = json.dumps(value, ensure_ascii=False)',
    '  quoted = f\'"{value}"\'',
    'tests/inference/test_front_matter.py -k place',
  ),
  guard.Guard(
    'mtnet_jax/inference/front_matter.py',
    ' and math.isfinite(value)',
    '',
    'tests/inference/test_front_matter.py -k undefined',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    "    texts.check_license(tree['license'], path)",
    '    pass',
    'tests/inference/test_bundles_of_strangers.py -k shown',
  ),
  guard.Guard(
    'mtnet_jax/inference/packing.py',
    "    texts.check_license(license, '--license')",
    '    pass',
    'tests/inference/test_front_matter.py -k no_licence',
  ),
  guard.Guard(
    'mtnet_jax/inference/card.py',
    '(at most {limit:d} nodules',
    '(at most {limit} nodules',
    'tests/inference/test_model_card.py -k limit',
  ),
  guard.Guard(
    'mtnet_jax/inference/card.py',
    '  text = _paragraph(text)\n',
    "  text = _prose(' '.join(text.split()))\n",
    'tests/inference/test_model_card.py -k paragraph',
  ),
)
