"""Guards of models that leave for PyTorch, and of what comes back."""

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
    '  if not _FITS[name](value):\n',
    '  if False:\n',
    f'{_BACK} -k stranger',
  ),
  guard.Guard(
    _EXPORTED,
    'RecursionError, ',
    '',
    f'{_BACK} -k stranger',
  ),
  guard.Guard(
    'mtnet_jax/inference/pytorch.py',
    '  if not _are_alike(members):\n',
    '  if False:\n',
    f'{_OUT} -k differ',
  ),
  guard.Guard(
    'mtnet_jax/inference/pytorch.py',
    '    if len(net.stem_widths) != 2:\n',
    '    if False:\n',
    f'{_OUT} -k stem',
  ),
  guard.Guard(
    'mtnet_jax/inference/stablehlo.py',
    "  if not hasattr(model, 'predict_fn'):\n",
    '  if False:\n',
    f'{_OUT} -k stablehlo',
  ),
)
