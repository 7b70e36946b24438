"""Guards of files that belong together, as those of `predict` do."""

from faults import guard

_EVALUATIONS = 'mtnet_jax/storage/evaluations.py'
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
  guard.Guard(
    _EVALUATIONS,
    '  _check(folder, results)\n  with together',
    '  with together',
    'tests/storage/test_evaluations.py -k user_s',
  ),
  guard.Guard(
    _EVALUATIONS,
    '  for name in _OF_OTHERS:\n',
    '  for name in ():\n',
    'tests/storage/test_evaluations.py -k user_s',
  ),
  guard.Guard(
    _EVALUATIONS,
    '    with together.one_writer(place):\n',
    '    with contextlib.nullcontext():\n',
    'tests/storage/test_evaluations.py -k at_a_time',
  ),
  guard.Guard(
    _EVALUATIONS,
    '    _mend_if_left(path)\n  return',
    '    pass\n  return',
    'tests/storage/test_evaluations.py -k killed',
  ),
  guard.Guard(
    _EVALUATIONS,
    '    if (path / _METRICS).exists() and',
    '    if',
    'tests/storage/test_evaluations.py -k half',
  ),
  guard.Guard(
    _EVALUATIONS,
    '        files.remove_leftovers(place)\n',
    '',
    'tests/storage/test_evaluations.py -k leftovers',
  ),
  guard.Guard(
    'mtnet_jax/evaluate.py',
    '    _check_all(still_there)\n    evaluations',
    '    evaluations',
    'tests/commands/test_run_moved_meanwhile.py -k below_another',
  ),
  guard.Guard(
    'mtnet_jax/storage/same_run.py',
    '      identity.check()\n',
    '      pass\n',
    'tests/commands/test_report.py -k another_run_stays',
  ),
)
