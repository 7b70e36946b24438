"""Guards of output files that belong together, such as those of `predict`."""

from faults import guard

_EVALUATIONS = 'mtnet_jax/storage/evaluations.py'
_TOGETHER = 'mtnet_jax/storage/together.py'
_OUT_FOLDER = 'mtnet_jax/ct/out_folder.py'
_MANY = 'mtnet_jax/ct/many_series.py'
_OTHERS = 'tests/commands/test_predict_others_files.py'
_OF_MANY = 'tests/commands/test_predict_many.py -k'
_BADGES = 'notebooks/badges.py'

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
    _TOGETHER,
    "folder / f'.{index}.mtnet_jax-files-{state}'",
    "folder / f'.{index}.mtnet_jax-{state}'",
    'tests/storage/test_together.py -k swap',
  ),
  guard.Guard(
    _TOGETHER,
    '    if name not in earlier and os.path.lexists(folder / name):\n',
    '    if False:\n',
    'tests/storage/test_together.py -k earlier',
  ),
  guard.Guard(
    _TOGETHER,
    '  for name in names:\n    if os.path.lexists(folder / name):\n',
    '  for name in names:\n    if False:\n',
    'tests/storage/test_together.py -k between',
  ),
  guard.Guard(
    _OUT_FOLDER,
    '  return index if _is_own(index) else None\n',
    '  return index\n',
    'tests/ct/test_out_folder.py -k another_tool',
  ),
  guard.Guard(
    _OUT_FOLDER,
    "{PAGE, SEGMENTATION, NIFTI}.intersection(index['files'])",
    "set(index['files'])",
    'tests/ct/test_out_folder.py -k gives',
  ),
  guard.Guard(
    _OUT_FOLDER,
    '    if file.read(len(_HEADER)) != _HEADER:\n',
    '    if False:\n',
    'tests/ct/test_out_folder.py -k table',
  ),
  guard.Guard(
    _OUT_FOLDER,
    '  if not path.is_file():\n    return None\n',
    '',
    'tests/ct/test_out_folder.py -k pipes',
  ),
  guard.Guard(
    _OUT_FOLDER,
    '    if _identities([folder / name]) & input_ids:\n',
    '    if False:\n',
    f'{_OTHERS} -k input',
  ),
  guard.Guard(
    _OUT_FOLDER,
    '  _refuse_others(folder, new - own)\n',
    '',
    f'{_OTHERS} -k name_of',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    '[*inputs, args.points] if args.points else inputs',
    'inputs',
    f'{_OTHERS} -k input',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    'together.together(out, out_folder.INDEX, own)',
    'together.together(out, out_folder.INDEX)',
    f'{_OTHERS} -k compute',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    '  out_folder.check_summary_folder(out)\n',
    '',
    f'{_OF_MANY} before_the_model',
  ),
  guard.Guard(
    _MANY,
    '    if out_folder.summary_files(folder.parent):\n',
    '    if (folder.parent / out_folder.TABLE).exists():\n',
    f'{_OF_MANY} beside_many',
  ),
  guard.Guard(
    'mtnet_jax/ct/summary.py',
    'out, out_folder.TABLE, out_folder.summary_files\n',
    'out, out_folder.TABLE\n',
    f'{_OF_MANY} beside_many',
  ),
  guard.Guard(
    'mtnet_jax/ct/rows.py',
    '      if value is not None and not isinstance(value, kind):\n',
    '      if False:\n',
    f'{_OF_MANY} no_table',
  ),
  guard.Guard(
    _MANY,
    'index if is_same and _has_rows(index) else None',
    'index if is_same else None',
    f'{_OF_MANY} no_table',
  ),
  guard.Guard(
    'mtnet_jax/predict.py',
    '    together.mend(out, out_folder.INDEX)\n    many',
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
  guard.Guard(
    _BADGES,
    "  if not found or url.endswith('.git'):\n",
    '  if not found:\n',
    'tests/commands/test_badges.py -k github_url',
  ),
  guard.Guard(
    _BADGES,
    '_GITHUB.fullmatch(url)',
    '_GITHUB.match(url)',
    'tests/commands/test_badges.py -k github_url',
  ),
  guard.Guard(
    _BADGES,
    '  if len(badges) != 1 or len(settings) != 1:\n',
    '  if not badges:\n',
    'tests/commands/test_badges.py -k without_a_place',
  ),
)
