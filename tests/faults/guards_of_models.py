"""Guards against what strangers' bundles, runs and weights say."""

from faults import guard

_WEIGHTS = 'mtnet_jax/weights/files.py'
_HDF5 = 'mtnet_jax/weights/hdf5.py'

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
    'tests/evaluation/test_finished_run.py'
    ' tests/inference/test_bundles_of_strangers.py',
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
    '    if count > _MAX_LISTED:',
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
    '        _card(read[-1])  # Before anything that takes long.\n',
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
)
