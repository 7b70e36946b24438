"""Guards of files that belong together, as those of `predict` do."""

from faults import guard

_TOGETHER = 'mtnet_jax/storage/together.py'

GUARDS = (
  guard.Guard(
    _TOGETHER,
    '  if _is_folder(ready):\n',
    '  if False:\n',
    'tests/storage/test_together.py',
  ),
  guard.Guard(
    _TOGETHER,
    '  elif _is_folder(old) and (',
    '  elif False and (',
    'tests/storage/test_together.py',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    '    together.mend(out, many_series.INDEX)\n    many',
    '    many',
    'tests/commands/test_predict_whole.py -k mended',
  ),
  guard.Guard(
    'mtnet_jax/ct/results.py',
    '    nodule.views.clear()\n',
    '',
    'tests/commands/test_predict_whole.py -k outlives',
  ),
)
