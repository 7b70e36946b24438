"""Builds a config of the dataset, or says whether it is there."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from typing import Any

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


def build(
  config: str | _LidcConfig,
  *,
  lidc_dir: str | os.PathLike | None = None,
  luna_dir: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  policy: str = '',
  strict: bool = False,
  workers: int = 1,
  beam_options: Any = None,
  download_config: tfds.download.DownloadConfig | None = None,
) -> _Builder:
  """Builds one config, unless it is there already.

  The files are written beside their place and moved there when they are
  complete: what fails leaves the disk as it was.

  Args:
    config: 'paper', 'all', 'phantom', or a config of one's own.
    lidc_dir: where the DICOM files are; not needed for phantoms.
    luna_dir: in place of `lidc_dir`, where the volumes of LUNA16 are.
    data_dir: where datasets live; by default where TFDS looks for this one, see
      `find`.
    overwrite: build again, and replace what is there.
    policy: `key=value,...` that changes the config, see `nodules.overrides`.
    strict: fail on the first file that cannot be used, instead of leaving out
      the nodules that need it.
    workers: processes. They are spawned: with more than one, the script that
      calls this needs `if __name__ == '__main__'`.
    beam_options: Apache Beam's `PipelineOptions`, to read the scans with it;
      `workers` then read headers only.
    download_config: passed on to TFDS; its `manual_dir` is `lidc_dir`.

  Returns:
    The builder; `as_data_source(split)` reads, `info.metadata` says what the
    build was made of.

  Raises:
    InputError: no such config or policy; nothing usable in `lidc_dir`;
      `data_dir` cannot be written; a fault, if `strict`.
  """
  _check_local(data_dir)
  builder = find(config, data_dir=data_dir, policy=policy, to_replace=overwrite)
  if not overwrite and builder.is_prepared():
    return builder
  config = builder.builder_config
  data_dir = pathlib.Path(builder.data_dir_root)

  download_config = download_config or tfds.download.DownloadConfig()
  if not config.simulated:
    if bool(lidc_dir) == bool(luna_dir):
      raise errors.InputError(
        f'--config={config.name} needs the CT of LIDC-IDRI: give the folder of '
        'its DICOM files as --lidc_dir, or that of LUNA16 as --luna_dir, or '
        'use --config=phantom, which needs no download'
      )
    # Absolute, as other machines and a later reader of the quarantine need it.
    directory = pathlib.Path(paths.expand(lidc_dir or luna_dir)).absolute()
    series.check_directory(directory)
    download_config = download_config.replace(manual_dir=directory)
  staging.check_writable(data_dir)
  with locks.exclusive(data_dir, config.name):
    # The process that this one waited for may have built it.
    if overwrite or not is_built(config, data_dir=data_dir):
      _build(
        builder,
        download_config,
        strict=strict,
        workers=workers,
        beam_options=beam_options,
        of_luna16=bool(luna_dir),
      )
      _remember_source(builder, download_config.manual_dir)
  return find(config, data_dir=data_dir)


def _build(
  builder,
  download_config,
  *,
  strict,
  workers,
  beam_options,
  of_luna16,
):
  """Builds beside its place, moves there, and forgets what it remembered."""
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
  with contextlib.suppress(OSError):  # another build's are there
    scans.parent.rmdir()


def is_built(
  config: str | _LidcConfig,
  *,
  data_dir: str | os.PathLike | None = None,
  policy: str = '',
) -> bool:
  """Whether a complete build of the config is there; see `build`."""
  _check_local(data_dir)
  return find(config, data_dir=data_dir, policy=policy).is_prepared()


def find(
  config: str | _LidcConfig,
  *,
  data_dir: str | os.PathLike | None = None,
  policy: str = '',
  to_replace: bool = False,
) -> _Builder:
  """The builder of a config, in the folder where TFDS looks for it.

  Everything that asks where a dataset is asks here, so that what one command
  builds the next one finds. `is_prepared()` says whether it was built.

  Args:
    config, policy: as in `build`.
    data_dir: where datasets live. None or '' leaves the choice to TFDS: a
      folder of `tfds.core.add_data_dir` that has the dataset, or else
      TFDS_DATA_DIR, or else ~/tensorflow_datasets.
    to_replace: where a dataset belongs, which may be there and damaged.

  Raises:
    InputError: no such config, no such policy; this user has no home folder
      and `data_dir` is not given; or the dataset is damaged.
  """
  return with_home(
    _Builder(
      config=find_config(config, policy),
      data_dir=given(data_dir),
      to_replace=to_replace,
    )
  )


def with_home(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
  """The builder, whose folder is one.

  Raises:
    InputError: it would be in the home folder, and this user has none.
  """
  # TFDS's own choice, which it leaves as it is where it knows no home.
  if os.fspath(builder.data_dir_root).startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {builder.data_dir_root}: give --data_dir, '
      'or set TFDS_DATA_DIR'
    )
  return builder


def given(data_dir: str | os.PathLike | None) -> str | None:
  """A folder as TFDS wants it: with ~ expanded, and None for its own choice."""
  return paths.expand(data_dir) if data_dir else None


def summary(builder: _Builder) -> str:
  """What a build holds and what it was made of, in one to four lines."""
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
  """A config by name, changed by `key=value,...` where that is given.

  Raises:
    InputError: no such config, or no such policy.
  """
  if isinstance(config, str):
    if config not in _Builder.builder_configs:
      raise errors.InputError(
        f'--config={config} does not exist; it is one of '
        f'{", ".join(_Builder.builder_configs)}'
      )
    config = _Builder.builder_configs[config]
  changed = overrides.apply(
    dataclasses.replace(config.policy, name=config.name), policy
  )
  if changed.name == config.name:
    return config
  return _LidcConfig(
    name=changed.name,
    policy=changed,
    simulated=config.simulated,
    version=config.version,
    release_notes=config.release_notes,
    description=f'{config.description} Changed: '
    f'{overrides.without_paths(policy)}.',
  )


def cache_dir(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """Where headers and scans that were read are remembered.

  Raises:
    InputError: `data_dir` is not on this machine.
  """
  _check_local(data_dir)
  builder = find('paper', data_dir=data_dir, to_replace=True)
  return _cache_below(pathlib.Path(builder.data_dir_root))


def _cache_below(data_dir: pathlib.Path) -> pathlib.Path:
  return data_dir / _Builder.name / '.cache'


def source_of(builder: _Builder) -> pathlib.Path | None:
  """The folder whose CT a build on this machine was made of, if it is known."""
  try:
    return pathlib.Path(_source_file(builder).read_text(encoding='utf-8'))
  except (OSError, UnicodeDecodeError):
    return None


def _remember_source(builder: _Builder, directory: os.PathLike | None) -> None:
  # Beside the dataset and not in it, which may be given to others, whom the
  # folders of this machine do not concern.
  path = _source_file(builder)
  with contextlib.suppress(OSError):  # A build is whole without it.
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


def _check_local(data_dir: str | os.PathLike | None) -> None:
  """Refuses to write into a folder that is not on this machine."""
  where = str(data_dir or os.environ.get('TFDS_DATA_DIR', ''))
  if '://' in where:  # `Path` would make a folder `gs:` of it
    raise errors.InputError(
      f'--data_dir={where} is not on this machine; build into a local '
      'folder and copy it there'
    )
