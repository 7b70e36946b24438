"""Scans read by Apache Beam give the same records and the same errors."""

import dataclasses
import os
import subprocess
import sys

import faulty_dicom
import pytest

pytest.importorskip('apache_beam', reason='needs the extra beam')

from apache_beam import runners  # noqa: E402
from apache_beam.options import pipeline_options  # noqa: E402

from tfds_lidc import build  # noqa: E402
from tfds_lidc import errors  # noqa: E402
from tfds_lidc.ct import index as series_index  # noqa: E402
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder  # noqa: E402
from tfds_lidc.nodules import selection  # noqa: E402
from tfds_lidc.scans import beam  # noqa: E402
from tfds_lidc.scans import files as scan_files  # noqa: E402
from tfds_lidc.scans import quarantine  # noqa: E402
from tfds_lidc.scans import reader  # noqa: E402

pytestmark = pytest.mark.extra

# Without this location, Beam first downloads and tries a runner in Go.
_DIRECT = ('--runner=DirectRunner', '--prism_location=/nowhere')
_TWO_PROCESSES = (
  *_DIRECT,
  '--direct_num_workers=2',
  '--direct_running_mode=multi_processing',
)


@pytest.fixture(scope='module')
def faulty(tmp_path_factory):
  return faulty_dicom.write(tmp_path_factory.mktemp('faulty'))


@pytest.fixture
def few_scans(monkeypatch):
  """A config of phantoms of the first 20 scans, when no others exist."""
  scans = list(dict.fromkeys(n.scan_id for n in selection.clusters()))[:20]
  few = tuple(n for n in selection.clusters() if n.scan_id in scans)
  monkeypatch.setattr(selection, 'clusters', lambda: few)
  return lidc_nodules_dataset_builder.LidcConfig(
    name='few', policy=selection.POLICIES['all'], simulated=True
  )


def _content(builder):
  """(values of all records, shard lengths, metadata, quarantine files)."""
  records = [
    {
      name: value.tobytes() if hasattr(value, 'tobytes') else value
      for name, value in record.items()
    }
    for split in builder.info.splits
    for record in builder.as_data_source(split)
  ]
  files = {
    path.name: path.read_bytes()
    for path in builder.data_path.iterdir()
    if path.name in quarantine.FILE_NAMES
  }
  shard_lengths = {
    name: split.shard_lengths for name, split in builder.info.splits.items()
  }
  return records, shard_lengths, dict(builder.info.metadata), files


def _jobs(directory):
  index = series_index.load(directory)
  return reader.jobs(selection.clusters(), selection.POLICIES['all'], index)


@pytest.fixture
def three_ways(tmp_path, monkeypatch):
  """Function: builds by 1 worker, 4 and Beam; returns their common content."""
  monkeypatch.setattr(lidc_nodules_dataset_builder, '_MIN_PARALLEL', 0)

  def build_all(config, lidc_dir=None):
    alone, four, by_beam = (
      _content(
        build.build(config, lidc_dir=lidc_dir, data_dir=tmp_path / name, **how)
      )
      for name, how in (
        ('alone', {'workers': 1}),
        ('four', {'workers': 4}),
        ('beam', {'beam_options': beam.options(_DIRECT)}),
      )
    )
    assert four == alone
    assert by_beam == alone
    # A complete build removes the files that its workers exchanged.
    assert not list(tmp_path.rglob('*.job'))
    assert not list(tmp_path.rglob('*.npz'))
    return alone

  return build_all


def test_phantoms_are_the_same_in_three_ways(few_scans, three_ways):
  records, shard_lengths, metadata, _ = three_ways(few_scans)
  assert len(records) == sum(map(sum, shard_lengths.values())) > 40
  assert metadata['simulated']


def test_faulty_ct_is_the_same_in_three_ways(faulty, three_ways):
  records, _, metadata, files = three_ways('all', faulty.directory)
  assert {r['nodule_id'].decode() for r in records} == faulty.whole
  assert metadata['nodules_quarantined'] == len(faulty.lost)
  assert set(quarantine.FILE_NAMES) == set(files)


def test_command_passes_flags_to_beam_and_builds_in_two_processes(
  faulty, tmp_path
):
  """Workers find the CT although the user gives a relative path."""
  lidc_dir = os.path.relpath(faulty.directory)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'tfds_lidc.build', '--config=all'),
      f'--lidc_dir={lidc_dir}',
      f'--data_dir={os.path.relpath(tmp_path / "beam")}',
      '--beam',
      '--',
      *_TWO_PROCESSES,
    ],
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  # Workers print the options that they received.
  assert "'direct_num_workers': 2" in done.stderr
  assert "'direct_running_mode': 'multi_processing'" in done.stderr
  assert done.stderr.count('Python sdk harness starting') == 2
  alone = build.build('all', lidc_dir=lidc_dir, data_dir=tmp_path / 'alone')
  by_beam = build.build('all', data_dir=tmp_path / 'beam')
  assert _content(by_beam) == _content(alone)


class _Runner(runners.DirectRunner):
  received = []  # the options of each run

  def run_pipeline(self, pipeline, options):
    self.received.append(options.get_all_options())
    return super().run_pipeline(pipeline, options)


def test_options_reach_the_runner(faulty, tmp_path):
  options = beam.options(
    [
      f'--runner={__name__}._Runner',
      '--prism_location=/nowhere',
      '--direct_num_workers',
      '1',
      '--job_name=lidc',
      '--experiments=a',
      '--experiments=b',
    ]
  )
  outcomes = list(beam.read_scans(_jobs(faulty.directory), tmp_path, options))
  assert len(outcomes) == 2
  (received,) = _Runner.received
  assert received['direct_num_workers'] == 1
  assert received['job_name'] == 'lidc'
  assert {'a', 'b'} <= set(received['experiments'])


def test_unknown_flags_are_kept_for_a_job_server():
  flags = ['--runner=FlinkRunner', '--flink_master=host:8081']
  options = beam.options([*flags, '--object_reuse=true'])
  flink = options.view_as(pipeline_options.FlinkRunnerOptions)
  assert flink.flink_master == 'host:8081'
  every = options.get_all_options(retain_unknown_options=True)
  assert every['object_reuse'] == 'true'


@pytest.mark.parametrize(
  'flags, message',
  [
    (['--direct_num_worker=2'], 'did you mean --direct_num_workers?'),
    (['--object_reuse=true'], '--object_reuse is no flag'),
    (['--runner=Nowhere'], 'Unexpected pipeline runner: Nowhere'),
    (['--runner=no.such.Runner'], "No module named 'no'"),
    (['--direct_num_workers=two'], "invalid int value: 'two'"),
    (['runner=FlinkRunner'], "'runner=FlinkRunner' is no flag"),
    (['--runner=DirectRunner', 'more'], "'more' is no flag"),
    (['--direct_num_workers', '2', '3'], "'3' is no flag"),
    (['--runner=DataflowRunner'], 'Missing required option: region'),
  ],
)
def test_error_of_wrong_flags(flags, message):
  with pytest.raises(errors.InputError) as raised:
    beam.options(flags)
  assert message in str(raised.value)


def test_command_ends_with_the_error_of_wrong_flags(tmp_path):
  for args, message in (
    (['--beam', '--', '--direct_num_worker=2'], '--direct_num_worker is no'),
    (['--', '--runner=FlinkRunner'], 'need --beam'),
    (['--runner=FlinkRunner'], 'unrecognized arguments: --runner'),
  ):
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'tfds_lidc.build', '--config=phantom'),
        f'--data_dir={tmp_path}',
        *args,
      ],
      text=True,
      capture_output=True,
      check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_stopped_build_reads_no_scan_twice(faulty, tmp_path, monkeypatch):
  jobs = _jobs(faulty.directory)
  assert len(jobs) == 2
  options = beam.options(_DIRECT)
  (first,) = beam.read_scans(jobs[:1], tmp_path, options)
  written = os.stat(first.file).st_mtime_ns
  sent = []
  run = beam._run

  def spy(read_scan, numbers, beam_options):
    sent.extend(numbers)
    run(read_scan, numbers, beam_options)

  monkeypatch.setattr(beam, '_run', spy)
  outcomes = list(beam.read_scans(jobs, tmp_path, options))
  assert sent == [1]
  assert outcomes[0] == first
  assert os.stat(first.file).st_mtime_ns == written
  # When both scans have been read, no pipeline is started.
  assert list(beam.read_scans(jobs, tmp_path, options)) == outcomes
  assert sent == [1]
  # A build without Beam does not read them again either.
  read = scan_files.ReadToFile(str(tmp_path))
  assert [read.recall(job) for job in jobs] == outcomes


class _Kill(scan_files.ReadToFile):
  """Ends its process at one patient, like a crash in a codec."""

  def __call__(self, job):
    if job.nodules[0].patient_id == faulty_dicom.OTHER:
      os._exit(1)
    return super().__call__(job)


def test_crash_loses_one_scan(faulty, tmp_path, monkeypatch):
  jobs = _jobs(faulty.directory)
  expected = [scan_files.ReadToFile(str(tmp_path))(jobs[0])]
  expected.append(scan_files.crashed(jobs[1]))
  assert jobs[1].nodules[0].patient_id == faulty_dicom.OTHER
  os.unlink(expected[0].file)
  monkeypatch.setattr(scan_files, 'ReadToFile', _Kill)
  found = list(beam.read_scans(jobs, tmp_path, beam.options(_DIRECT)))
  assert found == expected
  assert expected[1].losses[0].nodules == tuple(
    n.nodule_id for n in jobs[1].nodules
  )


def test_worker_without_access_to_the_ct_is_an_error(faulty, tmp_path):
  jobs = [
    dataclasses.replace(
      job,
      faults=(),
      series=dataclasses.replace(
        job.series,
        slices=tuple(
          s._replace(path=f'/not/mounted{s.path}') for s in job.series.slices
        ),
      ),
    )
    for job in _jobs(faulty.directory)
  ]
  with pytest.raises(errors.InputError, match='sees no file of .*same path$'):
    list(beam.read_scans(jobs, tmp_path, beam.options(_DIRECT)))


def test_worker_without_access_to_the_jobs_is_an_error(
  faulty, tmp_path, monkeypatch
):
  # Files written here do not appear on the worker's machine.
  monkeypatch.setattr(beam, '_dump', lambda content, path: None)
  jobs = _jobs(faulty.directory)
  with pytest.raises(errors.InputError, match='worker on .*0.job.*same path$'):
    list(beam.read_scans(jobs, tmp_path, beam.options(_DIRECT)))


def test_missing_files_are_losses_if_the_worker_sees_others(tmp_path):
  slices = faulty_dicom.write_patient(tmp_path / 'ct', faulty_dicom.OTHER)
  jobs = _jobs(tmp_path / 'ct')
  (tmp_path / 'scans').mkdir()
  for path in list(slices.values())[1:]:
    path.unlink()
  (outcome,) = beam.read_scans(jobs, tmp_path / 'scans', beam.options(_DIRECT))
  assert not outcome.nodules
  assert len(outcome.losses) == len(jobs[0].nodules)


def test_graph_does_not_contain_the_jobs(faulty, tmp_path, monkeypatch):
  sizes = []

  class Pipeline(beam.apache_beam.Pipeline):
    def run(self, *args, **kwargs):
      sizes.append(self.to_runner_api().ByteSize())
      return super().run(*args, **kwargs)

  jobs = _jobs(faulty.directory)
  options = beam.options(_DIRECT)
  monkeypatch.setattr(beam.apache_beam, 'Pipeline', Pipeline)
  outcomes = list(beam.read_scans(jobs, tmp_path, options))
  assert len(outcomes) == 2
  (size,) = sizes
  assert size < 20_000
  slices = sum(len(job.series.slices) for job in jobs)
  assert slices > 250


def test_error_without_beam_names_what_to_install(tmp_path):
  code = (
    'import sys\n'
    "sys.modules['apache_beam'] = None\n"  # as if it were not installed
    "sys.argv[1:] = ['--config=phantom', '--beam', '--data_dir=' + sys.argv[1]]"
    '\nfrom tfds_lidc import build, errors\n'
    'errors.exit_on_input_error(build.main)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert "pip install 'mtnet_jax[beam]'" in done.stderr
  assert not list(tmp_path.iterdir())
