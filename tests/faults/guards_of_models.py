"""Guards against the content of strangers' bundles, runs and weights."""

from faults import guard

_WEIGHTS = 'mtnet_jax/weights/files.py'
_HDF5 = 'mtnet_jax/weights/hdf5.py'
_TENSORS = 'mtnet_jax/storage/tensors.py'
_VALUES = 'mtnet_jax/storage/config_values.py'

GUARDS = (
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    "  texts.check_name(manifest.get('name'), folder / MANIFEST)\n",
    '',
    'tests/inference/test_bundles_of_strangers.py -k name',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  texts.check_card(card, folder / CARD)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k card',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  tensors.check_finite(variables, weights)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k weights',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '      _check_variables(check_variables, config, shapes, weights)\n',
    '      pass\n',
    'tests/inference/test_bundles_of_strangers.py -k weights',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  texts.check_tree(tree, path)\n'
    '  texts.check_types(tree, _METRICS_TYPES, path)\n',
    '',
    'tests/inference/test_bundles_of_strangers.py -k shown',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    '  _check_activations(config, where)\n',
    '',
    'tests/storage/test_size_limits.py -k products',
  ),
  guard.Guard(
    'mtnet_jax/system/errors.py',
    '    RecursionError,\n',
    '',
    'tests/system/test_errors.py -k wrong_values',
  ),
  guard.Guard(
    'mtnet_jax/system/errors.py',
    '    AttributeError,\n',
    '',
    'tests/system/test_errors.py -k wrong_values',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '    if not isinstance(tree[key], dict):',
    '    if False:',
    'tests/storage/test_workdir.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  if path.exists() and not path.is_file():',
    '  if False:',
    'tests/inference/test_bundles_of_strangers.py -k pipe',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '  if found != expected:',
    '  if False:',
    'tests/inference/test_bundles.py',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    "'..' not in name.split('/') and ",
    '',
    'tests/inference/test_remote.py',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    '    if num_listed > _MAX_LISTED:',
    '    if False:',
    'tests/inference/test_remote.py',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    '        _check_limits(url, len(sources), total)\n',
    '',
    'tests/inference/test_remote.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '    tensors.check_finite(\n',
    '    (lambda *_, **__: None)(\n',
    'tests/storage/test_workdir.py -k finite',
  ),
  guard.Guard(
    _HDF5,
    '    if not isinstance(group.get(part, getlink=True), h5py.HardLink):',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _HDF5,
    '    if dataset.external or dataset.is_virtual:',
    '    if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _HDF5,
    '  if sum(dataset.nbytes for dataset in found.values()) > MAX_BYTES:',
    '  if False:',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    _WEIGHTS,
    'weights_only=True, ',
    'weights_only=False, ',
    'tests/weights/test_load_refused.py -k code',
  ),
  guard.Guard(
    _WEIGHTS,
    '  if sum(sizes) > hdf5.MAX_BYTES:',
    '  if False:',
    'tests/weights/test_load_refused.py -k claim',
  ),
  guard.Guard(
    _WEIGHTS,
    '  hdf5.probe(path)\n',
    '',
    'tests/weights/test_hdf5.py',
  ),
  guard.Guard(
    'mtnet_jax/system/errors.py',
    '    StopIteration,\n',
    '',
    'tests/system/test_errors.py -k wrong_values',
  ),
  guard.Guard(
    'mtnet_jax/storage/files.py',
    '  except (RecursionError, ValueError) as error:',
    '  except ValueError as error:',
    'tests/storage/test_files.py -k nested',
  ),
  guard.Guard(
    'mtnet_jax/evaluation/finished_run.py',
    '  if foreign:\n',
    '  if False:\n',
    'tests/evaluation/test_finished_run.py -k stages',
  ),
  guard.Guard(
    'mtnet_jax/inference/members.py',
    '    with finished_run.damage(path):',
    '    if True:',
    'tests/inference/test_members.py -k odd',
  ),
  guard.Guard(
    'mtnet_jax/inference/members.py',
    '  _check_values(config, results)\n',
    '',
    'tests/inference/test_members.py -k odd',
  ),
  guard.Guard(
    'mtnet_jax/inference/members.py',
    '        with finished_run.damage(run.path):',
    '        if True:',
    'tests/inference/test_members.py -k networks',
  ),
  guard.Guard(
    'mtnet_jax/report.py',
    '  with finished_run.damage(run.path):',
    '  if True:',
    'tests/reports/test_report_of_damaged_runs.py',
  ),
  guard.Guard(
    'mtnet_jax/inference/packing.py',
    '        front_matter.readme(read[-1])\n',
    '',
    'tests/inference/test_packing.py -k odd_bundle',
  ),
  guard.Guard(
    'mtnet_jax/inference/packing.py',
    '      with finished_run.damage(runs[0]):',
    '      if True:',
    'tests/inference/test_packing.py -k odd_records',
  ),
  guard.Guard(
    'mtnet_jax/inference/packing.py',
    "  with errors.of_wrong_values(\n    f'{path}/metrics.json is damaged',\n"
    "    way_out='Delete that folder, and evaluate again.',\n  ):",
    '  if True:',
    'tests/inference/test_packing.py -k odd_evaluation',
  ),
  guard.Guard(
    'mtnet_jax/reports/figures.py',
    '.set_parse_math(\n    False\n',
    '.set_parse_math(\n    True\n',
    'tests/reports/test_page_of_odd_runs.py -k formula',
  ),
  guard.Guard(
    _VALUES,
    "  if _FILE_IN_A_NAME.search(dataset.get('name', '')):",
    '  if False:',
    'tests/storage/test_config_values.py -k file',
  ),
  guard.Guard(
    _VALUES,
    '  if _count_groups(tree) > _MAX_GROUPS:',
    '  if False:',
    'tests/storage/test_config_values.py -k hundreds',
  ),
  guard.Guard(
    _VALUES,
    "    _check_window(config['window'], where)\n",
    '    pass\n',
    'tests/storage/test_config_values.py -k window',
  ),
  guard.Guard(
    _VALUES,
    "  _check_spacing(dataset.get('spacing_mm', 0.0), where)\n",
    '',
    'tests/storage/test_config_values.py -k spacing',
  ),
  guard.Guard(
    _VALUES,
    '    _check_count(dataset, key, where)\n',
    '    pass\n',
    'tests/storage/test_config_values.py -k limit',
  ),
  guard.Guard(
    _VALUES,
    '    if key in config and not _is_one_of(config[key], known):',
    '    if False:',
    'tests/storage/test_config_values.py -k named',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  config_values.check_stored(tree, str(path))\n',
    '',
    'tests/storage/test_config_values.py -k named',
  ),
  guard.Guard(
    'mtnet_jax/storage/workdir.py',
    '  if path.stat().st_size > _MAX_CONFIG_BYTES:',
    '  if False:',
    'tests/storage/test_config_values.py -k megabyte',
  ),
  guard.Guard(
    'mtnet_jax/training/check_config.py',
    '  config_values.check(config)\n',
    '',
    'tests/commands/test_bad_input.py -k trained',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    "  yield 4, aspp + net['low_level_features']\n",
    '',
    'tests/storage/test_activation_limits.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    "  yield stride, (2 + len(_values(net['aspp_rates']))) * aspp\n",
    '',
    'tests/storage/test_activation_limits.py',
  ),
  guard.Guard(
    'mtnet_jax/storage/size_limits.py',
    '{**_DEFAULTS[name], **config.get(name, {})}',
    'dict(config.get(name, {}))',
    'tests/storage/test_activation_limits.py -k every',
  ),
  guard.Guard(
    _TENSORS,
    '      _check_name(name)\n',
    '',
    'tests/storage/test_tensors.py -k names',
  ),
  guard.Guard(
    _TENSORS,
    '    or len(shape) > _MAX_SIDES\n',
    '',
    'tests/storage/test_tensors.py -k shapes',
  ),
  guard.Guard(
    _TENSORS,
    'not 0 <= side < _MAX_SIDE',
    'side < 0',
    'tests/storage/test_tensors.py -k digits',
  ),
  guard.Guard(
    _TENSORS,
    '    _check_groups(found)\n',
    '',
    'tests/storage/test_tensors.py -k group',
  ),
  guard.Guard(
    'mtnet_jax/storage/bundle_files.py',
    '    if len(reason) > _MAX_REASON:',
    '    if False:',
    'tests/inference/test_bundles_of_strangers.py -k long',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    '  filesystem.invalidate_cache()\n',
    '',
    'tests/inference/test_hub.py -k again',
  ),
  guard.Guard(
    'mtnet_jax/inference/remote.py',
    "    top = path.rstrip('/') if top is None else top\n",
    '    top = root\n',
    'tests/inference/test_hub.py -k revision',
  ),
  guard.Guard(
    'mtnet_jax/data/dataset_names.py',
    "(split_by[=_]nodule|folds_\\w+|folds=)', name)",
    "(split_by[=_]nodule|folds_\\w+|folds=)', open(name).read())",
    'tests/data/test_dataset_names.py -k alone',
  ),
)
