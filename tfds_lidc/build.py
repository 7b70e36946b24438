r"""Builds the dataset `lidc_nodules` on this disk.

SIMULATED images of the real contours, without any download (15 s):

    python -m tfds_lidc.build --config=phantom

From the CT of LIDC-IDRI, or from any part of its patients:

    python -m tfds_lidc.build --config=paper --lidc_dir=~/LIDC-IDRI

From LUNA16's 888 volumes (pip install 'mtnet_jax[volumes]'), with the same
records for the scans that it contains:

    python -m tfds_lidc.build --config=paper --luna_dir=~/LUNA16

With another policy, as a dataset with its own name:

    python -m tfds_lidc.build --config=paper --lidc_dir=~/LIDC-IDRI \
        --policy=readers=3-4,consensus=1/2

On a cluster, through Apache Beam (pip install 'mtnet_jax[beam]'). All machines
need this package and must share both folders at the same path:

    python -m tfds_lidc.build --config=paper --lidc_dir=/shared/LIDC-IDRI \
        --data_dir=/shared/datasets --beam -- --runner=FlinkRunner \
        --flink_master=HOST:8081 --environment_type=EXTERNAL \
        --environment_config=localhost:50000

Everything after the -- is passed on to Beam and may choose any runner; by
default, Beam's DirectRunner reads the scans on this machine. The records are
the same. (Only the DirectRunner and the PortableRunner were tested.)

From your own list of nodules and your own folds, both CSV files (see
`python -m tfds_lidc.cohort --help`):

    python -m tfds_lidc.build --config=paper --lidc_dir=~/LIDC-IDRI \
        --policy=nodules=mine.csv,folds=mine.csv

The same command resumes a build that was stopped. Nodules of scans that cannot
be read are left out and listed in quarantine.csv in the dataset's folder.

Afterwards, anywhere on this machine:

    import tfds_lidc
    import tensorflow_datasets as tfds
    tfds.data_source('lidc_nodules/paper', split='train')
"""

import argparse
import os
from typing import Any

from tfds_lidc import cohort
from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building
from tfds_lidc.lidc_nodules import file_formats
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.nodules import overrides

# The same functions for use from Python.
build = building.build
is_built = building.is_built
summary = building.summary


def _beam_options(args: argparse.Namespace) -> Any:
  """Parses the options of Apache Beam; None without --beam."""
  if args.beam:
    from tfds_lidc.scans import beam  # needs the extra `beam`

    return beam.options(args.beam_flags)
  if args.beam_flags:
    raise errors.InputError(
      f'{args.beam_flags[0]!r} cannot be understood; flags of Apache Beam need '
      '--beam before the --'
    )
  return None


def _already_built(
  config: lidc_nodules_dataset_builder.LidcConfig, args: argparse.Namespace
) -> str:
  """Says that the config is built, and names its CT if other CT is wanted."""
  source = building.source_of(building.find(config, data_dir=args.data_dir))
  wanted = args.lidc_dir or args.luna_dir
  if source and wanted and os.path.realpath(source) != os.path.realpath(wanted):
    return (
      f'already built, from another folder ({source}); --overwrite reads '
      f'{wanted}'
    )
  return 'already built; --overwrite builds it again'


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('build', __doc__)
  parser.add_argument(
    '--config',
    required=True,
    help="paper (CT, the paper's selection of "
    'nodules), all (CT, every nodule that a reader outlined) or phantom '
    '(SIMULATED images of the nodules in paper, without a download)',
  )
  source = parser.add_mutually_exclusive_group()
  source.add_argument(
    '--lidc_dir',
    type=command_line.path,
    help='folder with the DICOM files of LIDC-IDRI, in any '
    'layout; not needed for --config=phantom',
  )
  source.add_argument(
    '--luna_dir',
    type=command_line.path,
    help='folder with the volumes of LUNA16 instead, such as the parent of '
    'subset0 to subset9; needs SimpleITK, the extra `volumes`',
  )
  command_line.add_data_dir(parser)
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='build again, and replace the existing dataset',
  )
  parser.add_argument('--policy', default='', help=overrides.HELP)
  parser.add_argument(
    '--strict',
    action='store_true',
    help='stop with an error if a file cannot be used, instead of leaving out '
    'the nodules that need it',
  )
  command_line.add_workers(parser)
  parser.add_argument(
    '--beam',
    action='store_true',
    help='read the scans through Apache Beam; headers are still read here, by '
    '--workers processes',
  )
  parser.add_argument(
    'beam_flags',
    nargs='*',
    metavar='-- BEAM_FLAG',
    help='any flag of Apache Beam, such as --runner=FlinkRunner',
  )
  parser.add_argument(
    '--tfrecord',
    action='store_true',
    help='add TFRecord files, which tfds.load reads, to the new or existing '
    'build (needs TensorFlow)',
  )
  args = parser.parse_args()
  beam_options = _beam_options(args)
  if args.tfrecord:
    file_formats.check_tensorflow('--tfrecord')

  config = building.find_config(args.config, args.policy)
  if args.policy:
    print(cohort.described(config.policy), flush=True)
  if not args.overwrite and is_built(config, data_dir=args.data_dir):
    print(_already_built(config, args))
  builder = build(
    config,
    lidc_dir=args.lidc_dir,
    luna_dir=args.luna_dir,
    data_dir=args.data_dir,
    overwrite=args.overwrite,
    strict=args.strict,
    workers=args.workers,
    beam_options=beam_options,
  )
  print(summary(builder))
  if args.tfrecord:
    file_formats.add_tfrecord(builder)
    print('with TFRecord files beside the array_record ones, for tfds.load')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
