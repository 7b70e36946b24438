"""Reads scans on a cluster with Apache Beam (the extra `beam`).

Beam only replaces `parallel.ordered_map`: the function that reads a scan and
the files that it writes are the same, and outcomes come in the order of the
jobs. The rest of a build does not depend on how the scans were read. TFDS could
also write records through Beam, but the counts, the quarantine and the choice
of splits need every outcome before writing starts.

Only the indices of jobs travel through Beam. Jobs, examples and outcomes are in
files, because a job lists every slice of its scan, and a thousand jobs exceed
the size limit of a pipeline's graph. Therefore all machines must share the
folders of the CT and of the dataset at the same path.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import difflib
import io
import os
import pathlib
import pickle
import re
import shutil
import socket
from typing import Any
import uuid

from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc.ct import metaimage
from tfds_lidc.scans import files
from tfds_lidc.scans import reader

try:
  import apache_beam
  from apache_beam.options import pipeline_options
  from apache_beam.runners.portability import portable_runner
except ImportError as e:
  raise errors.InputError(
    f"Apache Beam is not installed ({e}); run: pip install 'mtnet_jax[beam]'"
  ) from e


def options(flags: Sequence[str]) -> pipeline_options.PipelineOptions:
  """Parses flags of Apache Beam.

  A flag that Beam does not know is passed on to runners with a job server
  (Flink, Spark), which may know it; with any other runner it is an error.

  Args:
    flags: `--name=value` or `--name`, `value`; empty for Beam's DirectRunner.

  Returns:
    The options, for `read_scans`.

  Raises:
    InputError: a flag or runner is unknown, a value is invalid, or a flag that
      the runner requires is missing.
  """
  # Beam would silently skip an argument that is neither a flag nor its value.
  for previous, flag in zip(['--=', *flags], flags, strict=False):
    if not flag.startswith('--') and (
      '=' in previous or not previous.startswith('--')
    ):
      raise errors.InputError(
        f'{flag!r} is no flag of Apache Beam; flags begin with --'
      )
  usage = io.StringIO()
  try:
    with contextlib.redirect_stderr(usage):
      parsed = pipeline_options.PipelineOptions(flags)
      names = parsed.get_all_options(retain_unknown_options=True)
      pipeline = apache_beam.Pipeline(options=parsed)
  except SystemExit as e:  # argparse exits after it has printed pages of usage
    complaint = usage.getvalue().rstrip().rpartition(' error: ')[2]
    raise errors.InputError(f'flags of Apache Beam: {complaint}') from e
  except (AttributeError, ImportError, RuntimeError, ValueError) as e:
    raise errors.InputError(f'flags of Apache Beam: {e}') from e
  known = pipeline_options.PipelineOptions([]).get_all_options()
  unknown = sorted(set(names) - set(known))
  if unknown and not isinstance(
    pipeline.runner, portable_runner.PortableRunner
  ):
    close = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f'; did you mean --{close[0]}?' if close else ''
    raise errors.InputError(f'--{unknown[0]} is no flag of Apache Beam{hint}')
  return parsed


def read_scans(
  jobs: Sequence[reader.Job],
  scan_dir: str | os.PathLike[str],
  beam_options: pipeline_options.PipelineOptions,
) -> Iterator[files.Outcome]:
  """Yields `files.ReadToFile(scan_dir)(job)` in the order of the jobs.

  Scans that an earlier run has read are not sent to the cluster.

  Args:
    jobs: the scans; their files are at the same path on every machine.
    scan_dir: shared directory that keeps scans that were read.
    beam_options: options with the runner, see `options`.

  Yields:
    The outcome of each scan.

  Raises:
    InputError: a worker cannot access the shared files.
    RuntimeError: the pipeline failed.
  """
  read = files.ReadToFile(os.path.abspath(scan_dir))
  # Not with `tempfile`: workers may run as other users, which cannot enter its
  # folders.
  exchange_dir = pathlib.Path(read.directory) / f'beam-{uuid.uuid4().hex}'
  exchange_dir.mkdir()
  try:
    known = [read.recall(job) for job in jobs]
    unread = [k for k, outcome in enumerate(known) if not outcome]
    for k in unread:
      _dump(jobs[k], exchange_dir / f'{k}.job')
    if unread:
      _run(_ReadScan(read, os.fspath(exchange_dir)), unread, beam_options)
    for k, outcome in enumerate(known):
      found = outcome or _load(exchange_dir / f'{k}.outcome')
      if isinstance(found, errors.InputError):
        raise found
      yield found
  finally:
    shutil.rmtree(exchange_dir, ignore_errors=True)


class _ReadScan(apache_beam.DoFn):
  """Reads the scan of `<k>.job` and writes `<k>.outcome`."""

  def __init__(self, read: files.ReadToFile, exchange_dir: str):
    self._read = read
    self._exchange_dir = exchange_dir

  def setup(self) -> None:
    # A crash would end the worker and, after some retries, the whole pipeline.
    self._reader = parallel.SeparateProcess(self._read, on_crash=files.crashed)

  def process(self, k: int) -> None:
    path = pathlib.Path(self._exchange_dir) / str(k)
    try:
      job = _load(path.with_suffix('.job'))
      # Errors are stored as outcomes if possible, since Beam prints pages of
      # text for an exception.
      outcome = (
        self._reader(job)
        if _is_visible(job)
        else _not_shared(f'sees no file of {job.series.folder}')
      )
      _dump(outcome, path.with_suffix('.outcome'))
    except OSError as e:
      raise _not_shared(f'cannot go on ({e})') from e

  def teardown(self) -> None:
    self._reader.close()


def _is_visible(job: reader.Job) -> bool:
  """Whether any file of a scan exists here, even if it is broken."""
  if job.series is None:  # simulated
    return True
  paths = [metaimage.file_of(s.path) for s in job.series.slices]
  paths += [f.path for f in job.faults]
  return any(map(os.path.exists, paths))


def _not_shared(what: str) -> errors.InputError:
  return errors.InputError(
    f'the Beam worker on {socket.gethostname()} {what}; --lidc_dir and '
    '--data_dir have to be folders that all machines share, at the same path'
  )


def _run(
  read_scan: _ReadScan,
  job_indices: list[int],
  beam_options: pipeline_options.PipelineOptions,
) -> None:
  pipeline = apache_beam.Pipeline(options=beam_options)
  # `Create` distributes its elements over all workers.
  _ = (
    pipeline
    | 'Scans' >> apache_beam.Create(job_indices)
    | 'ReadScan' >> apache_beam.ParDo(read_scan)
  )
  try:
    result = pipeline.run()
    try:
      state = result.wait_until_finish()
    except KeyboardInterrupt:
      result.cancel()
      raise
  except Exception as e:  # each runner has its own type; all quote the worker
    text = f'{type(e).__name__}: {e}'
    complaint = re.search(r'InputError: (.*?)(?: \[while|$)', text, re.M)
    if complaint:
      raise errors.InputError(complaint[1]) from e
    raise
  if state not in (None, 'DONE'):
    raise errors.InputError(
      f'the Beam pipeline ended as {state}; run the same command to continue'
    )


def _dump(content: Any, path: pathlib.Path) -> None:
  """Writes another file and renames it, as a retried worker may also write."""
  partial = path.with_suffix(f'.{uuid.uuid4().hex}')
  partial.write_bytes(pickle.dumps(content))
  os.replace(partial, path)


def _load(path: pathlib.Path) -> Any:
  return pickle.loads(path.read_bytes())
