"""Builds a config of the dataset, or finds an existing build."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from typing import Any
from typing import TypeVar

import tensorflow_datasets as tfds

from tfds_lidc import errors
from tfds_lidc import paths
from tfds_lidc.ct import series
from tfds_lidc.folder_swap import staged as staged_lib
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.lidc_nodules import locks
from tfds_lidc.lidc_nodules import staging
from tfds_lidc.nodules import overrides
from tfds_lidc.scans import files

_Builder = lidc_nodules_dataset_builder.Builder
_LidcConfig = lidc_nodules_dataset_builder.LidcConfig
_AnyBuilder = TypeVar('_AnyBuilder', bound=tfds.core.DatasetBuilder)


def build(
  config: str | _LidcConfig,
  *,
  lidc_dir: str | os.PathLike[str] | None = None,
  luna_dir: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  overwrite: bool = False,
  policy: str = '',
  strict: bool = False,
  workers: int = 1,
  beam_options: Any = None,
  download_config: tfds.download.DownloadConfig | None = None,
) -> _Builder:
  """Builds one config, unless it is built already.

  The files are written in a staging folder and moved when they are complete, so
  that a failure leaves the disk unchanged.

  Args:
    config: 'paper', 'all', 'phantom', or a `LidcConfig`.
    lidc_dir: folder of the DICOM files; not needed for phantoms.
    luna_dir: folder of the volumes of LUNA16, in place of `lidc_dir`.
    data_dir: folder of all datasets; by default where TFDS looks for this one,
      see `find`.
    overwrite: whether to build again, and replace the existing build.
    policy: `key=value,...` that changes the config, see `nodules.overrides`.
    strict: whether to fail if a file cannot be used, instead of leaving out the
      nodules that need it.
    workers: number of processes. They are spawned: with more than one, the
      script that calls this needs `if __name__ == '__main__'`.
    beam_options: Apache Beam's `PipelineOptions`, to read the scans with Beam;
      `workers` then only read headers.
    download_config: passed on to TFDS, with the CT as its `manual_dir`.

  Returns:
    The builder; `as_data_source(split)` reads records, and `info.metadata`
    describes the build.

  Raises:
    InputError: there is no such config or policy; `lidc_dir` has no usable
      files; `data_dir` cannot be written; or there is a fault and `strict`.
  """
  _check_local(data_dir)
  builder = find(config, data_dir=data_dir, policy=policy, to_replace=overwrite)
  if not overwrite and builder.is_prepared():
    return builder
  chosen = builder.builder_config
  root = pathlib.Path(builder.data_dir_root)

  download_config = download_config or tfds.download.DownloadConfig()
  if not chosen.simulated:
    ct_dir = lidc_dir or luna_dir
    if not ct_dir or (lidc_dir and luna_dir):
      raise errors.InputError(
        f'--config={chosen.name} needs the CT of LIDC-IDRI: give the folder of '
        'its DICOM files as --lidc_dir, or that of LUNA16 as --luna_dir, or '
        'use --config=phantom, which needs no download'
      )
    # Absolute, since other machines and readers of the quarantine need it.
    directory = pathlib.Path(paths.expand(ct_dir)).absolute()
    series.check_directory(directory)
    download_config = download_config.replace(manual_dir=directory)
  staging.check_writable(root)
  with locks.exclusive(root, chosen.name):
    # Another process may have built it while this one waited.
    if overwrite or not is_built(chosen, data_dir=root):
      _build(
        builder,
        download_config,
        strict=strict,
        workers=workers,
        beam_options=beam_options,
        of_luna16=bool(luna_dir),
      )
      _remember_source(builder, download_config.manual_dir)
  return find(chosen, data_dir=root)


def _build(
  builder: _Builder,
  download_config: tfds.download.DownloadConfig,
  *,
  strict: bool,
  workers: int,
  beam_options: Any,
  of_luna16: bool,
) -> None:
  """Builds in a staging folder, publishes it, and removes the stored scans."""
  config, data_dir = builder.builder_config, pathlib.Path(builder.data_dir_root)
  try:
    staging.remove_leftovers(builder)
    with staging.folder(builder) as folder:
      staged = _Builder(config=config, data_dir=folder)
      staged.show_progress = True
      staged.strict = strict
      staged.workers = workers
      staged.beam_options = beam_options
      staged.of_luna16 = of_luna16
      staged.cache_dir = _cache_below(data_dir)
      with staging.quiet_tfds():
        staged.download_and_prepare(download_config=download_config)
      staging.publish(folder, data_dir, staged.data_path)
  except OSError as e:
    raise errors.InputError(
      f'cannot write the dataset into {data_dir} ({e}); free some space '
      'there, or choose another --data_dir'
    ) from e
  scans = files.folder(_cache_below(data_dir), config.name)
  shutil.rmtree(scans, ignore_errors=True)
  with contextlib.suppress(OSError):  # scans of another build are there
    scans.parent.rmdir()


def is_built(
  config: str | _LidcConfig,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  policy: str = '',
) -> bool:
  """Whether a complete build of the config exists; see `build`."""
  _check_local(data_dir)
  return find(config, data_dir=data_dir, policy=policy).is_prepared()


def find(
  config: str | _LidcConfig,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  policy: str = '',
  to_replace: bool = False,
) -> _Builder:
  """Returns the builder of a config, in the folder where TFDS looks for it.

  All commands find datasets through this function, so that one command finds
  what another has built. `is_prepared()` says whether it was built.

  Args:
    config: as in `build`.
    data_dir: folder of all datasets. None or '' leaves the choice to TFDS: a
      folder of `tfds.core.add_data_dir` that has the dataset, or else
      TFDS_DATA_DIR, or else ~/tensorflow_datasets.
    policy: as in `build`.
    to_replace: whether the builder replaces the existing dataset, which may be
      damaged then.

  Returns:
    The builder.

  Raises:
    InputError: there is no such config or policy; the user has no home folder
      and `data_dir` is not set; or the dataset is damaged.
  """
  return with_home(
    _Builder(
      config=find_config(config, policy),
      data_dir=expand_data_dir(data_dir),
      to_replace=to_replace,
    )
  )


def with_home(builder: _AnyBuilder) -> _AnyBuilder:
  """Returns a builder after checking that the ~ of its folder was expanded.

  Raises:
    InputError: the dataset would be in the home folder, and there is none.
  """
  # TFDS leaves the ~ of its default folder unchanged if there is no home.
  if os.fspath(builder.data_dir_root).startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {builder.data_dir_root}: give --data_dir, '
      'or set TFDS_DATA_DIR'
    )
  return builder


def expand_data_dir(data_dir: str | os.PathLike[str] | None) -> str | None:
  """Expands ~ in a folder for TFDS; None or '' becomes None, TFDS's choice."""
  return paths.expand(data_dir) if data_dir else None


def summary(builder: _Builder) -> str:
  """Describes the content and the sources of a build in one to four lines."""
  info = builder.info
  splits = ', '.join(
    f'{name} {split.num_examples}' for name, split in info.splits.items()
  )
  records = sum(split.num_examples for split in info.splits.values())
  simulated = ' SIMULATED' if info.metadata['simulated'] else ''
  lines = [
    f'{info.full_name}: {records}{simulated} records ({splits}) in '
    f'{builder.data_dir}'
  ]
  if 'scans_used' in info.metadata:
    lines.append(
      f'scans: {info.metadata["scans_used"]} used, '
      f'{info.metadata["scans_missing"]} not on this disk'
    )
    if info.metadata.get('nodules_quarantined'):
      lines.append(
        f'quarantined: {info.metadata["nodules_quarantined"]} nodules, '
        f'{info.metadata["scans_quarantined"]} scans as a whole; '
        f'{builder.data_path / "quarantine.csv"} says why'
      )
  if info.metadata['dropped']:
    lines.append(
      f'dropped, as no pixel reaches the consensus: '
      f'{", ".join(info.metadata["dropped"])}'
    )
  return '\n'.join(lines)


def find_config(config: str | _LidcConfig, policy: str = '') -> _LidcConfig:
  """Returns a config by name, changed by a policy if there is one.

  Args:
    config: as in `build`.
    policy: as in `build`.

  Returns:
    The config; with another name if the policy makes a difference.

  Raises:
    InputError: there is no such config or policy.
  """
  if isinstance(config, str):
    if config not in _Builder.builder_configs:
      raise errors.InputError(
        f'--config={config} does not exist; it is one of '
        f'{", ".join(_Builder.builder_configs)}'
      )
    base = _Builder.builder_configs[config]
  else:
    base = config
  changed = overrides.apply(
    dataclasses.replace(base.policy, name=base.name), policy
  )
  if changed.name == base.name:
    return base
  return _LidcConfig(
    name=changed.name,
    policy=changed,
    simulated=base.simulated,
    version=base.version,
    release_notes=base.release_notes,
    description=f'{base.description} Changed: '
    f'{overrides.without_paths(policy)}.',
  )


def cache_dir(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the folder that caches headers and scans that were read.

  Args:
    data_dir: as in `find`.

  Returns:
    The folder, which need not exist.

  Raises:
    InputError: `data_dir` is not on this machine.
  """
  _check_local(data_dir)
  builder = find('paper', data_dir=data_dir, to_replace=True)
  return _cache_below(pathlib.Path(builder.data_dir_root))


def _cache_below(data_dir: pathlib.Path) -> pathlib.Path:
  return data_dir / _Builder.name / '.cache'


def source_of(builder: _Builder) -> pathlib.Path | None:
  """Returns the folder of the CT of a local build, or None if it is unknown."""
  try:
    return pathlib.Path(_source_file(builder).read_text(encoding='utf-8'))
  except (OSError, UnicodeDecodeError):
    return None


def _remember_source(
  builder: _Builder, directory: str | os.PathLike[str] | None
) -> None:
  # Not inside the dataset, because others who get a copy of it must not see
  # folders of this machine.
  path = _source_file(builder)
  with contextlib.suppress(OSError):  # a build is complete without it
    path.unlink(missing_ok=True)
    if directory is not None:
      path.parent.mkdir(parents=True, exist_ok=True)
      with staged_lib.file(path) as staged:
        staged.write_text(os.fspath(directory), encoding='utf-8')
        os.replace(staged, path)


def _source_file(builder: _Builder) -> pathlib.Path:
  config = builder.builder_config.name
  root = pathlib.Path(builder.data_dir_root)
  return _cache_below(root) / 'built_from' / f'{config}-{builder.version}'


def _check_local(data_dir: str | os.PathLike[str] | None) -> None:
  """Raises `InputError` if the folder is not on this machine."""
  where = str(data_dir or os.environ.get('TFDS_DATA_DIR', ''))
  if '://' in where:  # `Path` would create a local folder `gs:`
    raise errors.InputError(
      f'--data_dir={where} is not on this machine; build into a local '
      'folder and copy it there'
    )
