"""Builds the dataset `lidc_nodules` on this disk.

Without any download, SIMULATED images for the real outlines (15 s):

    python -m tfds_lidc.build --config=phantom

From the CT of LIDC-IDRI, or as many of its patients as there are:

    python -m tfds_lidc.build --config=paper --lidc_dir=~/LIDC-IDRI

Then, anywhere on this machine:

    import tfds_lidc
    import tensorflow_datasets as tfds
    tfds.data_source('lidc_nodules/paper', split='train')
"""

import argparse
from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import shutil
import tempfile

import tensorflow_datasets as tfds

from tfds_lidc import dicom
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder

DEFAULT_DATA_DIR = '~/tensorflow_datasets'

_Builder = lidc_nodules_dataset_builder.Builder
_LidcConfig = lidc_nodules_dataset_builder.LidcConfig


def build(
  config: str | _LidcConfig,
  *,
  lidc_dir: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
  overwrite: bool = False,
  download_config: tfds.download.DownloadConfig | None = None,
) -> _Builder:
  """Builds one config, unless it is there already.

  The files are written beside their place and moved there when they are
  complete: what fails leaves the disk as it was.

  Args:
    config: 'paper', 'all', 'phantom', or a config of one's own.
    lidc_dir: where the DICOM files are; not needed for phantoms.
    data_dir: where datasets live; `DEFAULT_DATA_DIR` by default.
    overwrite: build again, and replace what is there.
    download_config: passed on to TFDS; its `manual_dir` is `lidc_dir`.

  Returns:
    The builder; `as_data_source(split)` reads, `info.metadata` says what the
    build was made of.

  Raises:
    InputError: no such config; nothing usable in `lidc_dir`; `data_dir` cannot
      be written.
  """
  config = _find_config(config)
  data_dir = _local_dir(data_dir)
  if not overwrite and is_built(config, data_dir=data_dir):
    return _Builder(config=config, data_dir=data_dir)

  download_config = download_config or tfds.download.DownloadConfig()
  if not config.simulated:
    if not lidc_dir:
      raise errors.InputError(
        f'--config={config.name} needs the CT of LIDC-IDRI: give its folder '
        'as --lidc_dir, or use --config=phantom, which needs no download'
      )
    lidc_dir = pathlib.Path(lidc_dir).expanduser()
    dicom.check_directory(lidc_dir)
    download_config = download_config.replace(manual_dir=lidc_dir)
  _check_writable(data_dir)

  try:
    with tempfile.TemporaryDirectory(
      prefix='.incomplete_', dir=data_dir
    ) as staging:
      staged = _Builder(config=config, data_dir=staging)
      staged.show_progress = True
      with _quiet_tfds():
        staged.download_and_prepare(download_config=download_config)
      _publish(pathlib.Path(staging), data_dir, staged.data_path)
  except OSError as e:
    raise errors.InputError(
      f'cannot write the dataset into {data_dir} ({e}); free some space '
      'there, or choose another --data_dir'
    ) from e
  return _Builder(config=config, data_dir=data_dir)


def is_built(
  config: str | _LidcConfig, *, data_dir: str | os.PathLike | None = None
) -> bool:
  """Whether a complete build of the config is there; see `build`."""
  builder = _Builder(config=_find_config(config), data_dir=_local_dir(data_dir))
  return (builder.data_path / 'dataset_info.json').exists()


def summary(builder: _Builder) -> str:
  """What a build holds and what it was made of, in one to three lines."""
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
  if info.metadata['dropped']:
    lines.append(
      f'dropped, as no pixel reaches the consensus: '
      f'{", ".join(info.metadata["dropped"])}'
    )
  return '\n'.join(lines)


def _find_config(config: str | _LidcConfig) -> _LidcConfig:
  if not isinstance(config, str):
    return config
  if config not in _Builder.builder_configs:
    raise errors.InputError(
      f'--config={config} does not exist; it is one of '
      f'{", ".join(_Builder.builder_configs)}'
    )
  return _Builder.builder_configs[config]


def _local_dir(data_dir: str | os.PathLike | None) -> pathlib.Path:
  if '://' in str(data_dir):  # `Path` would make a folder `gs:` of it
    raise errors.InputError(
      f'--data_dir={data_dir} is not on this machine; build into a local '
      'folder and copy it there'
    )
  return pathlib.Path(data_dir or DEFAULT_DATA_DIR).expanduser()


def _check_writable(data_dir: pathlib.Path) -> None:
  """Creates the data directory and proves that it can be written."""
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=data_dir):
      pass
  except OSError as e:
    raise errors.InputError(
      f'cannot write into --data_dir={data_dir} ({e.strerror}); choose another'
    ) from e


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
  """Silences what TFDS says of a build: our bars, which know their ends, would
  interleave with its own, and it announces the staging directory as final."""
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()


def _publish(
  staging: pathlib.Path, data_dir: pathlib.Path, staged: os.PathLike
) -> None:
  """Moves a finished build, and what TFDS keeps beside it, into place."""
  version = pathlib.Path(staged).relative_to(staging)
  # TFDS notes the default config under the dataset, for every config alike.
  notes = pathlib.Path(version.parts[0]) / '.config'
  shutil.copytree(staging / notes, data_dir / notes, dirs_exist_ok=True)
  target = data_dir / version
  target.parent.mkdir(parents=True, exist_ok=True)
  if target.exists():
    os.rename(target, staging / 'replaced')
  os.rename(staging / version, target)


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m tfds_lidc.build',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--config',
    required=True,
    help="paper (CT, the paper's selection of "
    'nodules), all (CT, every nodule that a reader outlined) or phantom '
    '(SIMULATED images of the nodules in paper; no download)',
  )
  parser.add_argument(
    '--lidc_dir',
    help='folder with the DICOM files of LIDC-IDRI, in any '
    'layout; not needed for --config=phantom',
  )
  parser.add_argument(
    '--data_dir',
    default=DEFAULT_DATA_DIR,
    help='where TFDS keeps its datasets (default: %(default)s)',
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='build again, and replace what is there',
  )
  args = parser.parse_args()

  if not args.overwrite and is_built(args.config, data_dir=args.data_dir):
    print('already built; --overwrite builds it again')
  builder = build(
    args.config,
    lidc_dir=args.lidc_dir,
    data_dir=args.data_dir,
    overwrite=args.overwrite,
  )
  print(summary(builder))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
