"""Damaged files are read, or refused by a clear message."""

import random
import time

from faults import fuzz
from faults import target as target_lib
from faults import targets
import pytest

pytestmark = pytest.mark.filterwarnings('ignore')  # pydicom warns of damage

_FAST = ('dicom', 'series', 'points', 'policy', 'safetensors')


@pytest.mark.parametrize('name', _FAST)
def test_damaged_files_are_read_or_refused(name, tmp_path):
  corpus = targets.TARGETS[name].corpus()
  outcomes = set()
  for number in range(100):
    case = fuzz.case_of(name, corpus, 1, number)
    result = fuzz.attempt(name, case, tmp_path / str(number))
    assert result.outcome != 'failed', (number, result.detail)
    outcomes.add(result.outcome)
  # Inputs that are all refused would prove nothing.
  assert outcomes == {'accepted', 'refused'}


@pytest.mark.long
@pytest.mark.extra
def test_no_target_fails(tmp_path):
  pytest.importorskip('torch', reason='needs the extra interop')
  counts, details = fuzz.fuzz(
    list(targets.TARGETS), inputs=5000, seed=2, out=tmp_path, quiet=True
  )
  assert not details
  assert sum(sum(count.values()) for count in counts.values()) >= 5000


def test_seed_reproduces_its_inputs():
  corpus = targets.TARGETS['points'].corpus()
  first, again, other = (
    [fuzz.case_of('points', corpus, seed, n) for n in range(20)]
    for seed in (0, 0, 1)
  )
  assert first == again != other


def _read_as(monkeypatch, read):
  target = target_lib.Target(1, lambda: [{}], lambda *_: {}, read)
  monkeypatch.setitem(targets.TARGETS, 'example', target)


def test_anything_but_a_clear_refusal_is_a_failure(monkeypatch, tmp_path):
  def crash(folder):
    raise KeyError(folder)

  def exhaust_memory(folder):
    try:
      raise MemoryError
    except MemoryError as error:
      raise target_lib.Refused('cannot be read') from error

  def hang(folder):
    time.sleep(30)

  monkeypatch.setattr(fuzz, 'MAX_SECONDS', 1)
  for read in (crash, exhaust_memory, hang):
    _read_as(monkeypatch, read)
    assert fuzz.attempt('example', {}, tmp_path).outcome == 'failed', read


def test_damage_changes_a_copy_of_the_case():
  rng = random.Random(0)
  case = {'points.csv': b'x,y,z\n1,2,3\n'}
  damaged = [
    targets.TARGETS['points'].damage(rng, case, case) for _ in range(9)
  ]
  assert any(found != case for found in damaged)
  assert case == {'points.csv': b'x,y,z\n1,2,3\n'}
