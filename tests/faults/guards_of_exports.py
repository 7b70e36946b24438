"""Guards of exports to PyTorch, and of weights that come back from there."""

from faults import guard

_EXPORTED = 'mtnet_jax/weights/exported.py'
_BACK = 'tests/weights/test_exported.py'
_OUT = 'tests/inference/test_export_formats.py'

GUARDS = (
  guard.Guard(
    _EXPORTED,
    '  if SETTINGS not in metadata:\n',
    '  if False:\n',
    f'{_BACK} -k stranger',
  ),
  guard.Guard(
    _EXPORTED,
    '    exported_settings.check_settings(settings)\n',
    '',
    f'{_BACK} -k stranger',
  ),
  guard.Guard(
    _EXPORTED,
    '    RecursionError,\n',
    '',
    f'{_BACK} -k stranger',
  ),
  guard.Guard(
    'mtnet_jax/inference/pytorch.py',
    'member.temperature != 1\n    or ',
    '',
    f'{_OUT} -k one_method',
  ),
  guard.Guard(
    'mtnet_jax/inference/pytorch.py',
    '    if len(net.stem_widths) != 2:\n',
    '    if False:\n',
    f'{_OUT} -k stem',
  ),
  guard.Guard(
    'mtnet_jax/inference/stablehlo.py',
    '  if isinstance(model, ensemble.Ensemble):\n',
    '  if False:\n',
    f'{_OUT} -k stablehlo',
  ),
  guard.Guard(
    'mtnet_jax/training/from_public.py',
    '    _check_strategy(resolved, task, fields, path)\n',
    '',
    f'{_BACK} -k otherwise',
  ),
  guard.Guard(
    _EXPORTED,
    '    AttributeError,\n',
    '',
    f'{_BACK} -k stranger',
  ),
)
