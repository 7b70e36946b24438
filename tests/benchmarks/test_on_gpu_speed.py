"""Tests the measurement of speed in a visit to a GPU."""

import json
import types

import main_job
import pytest

from benchmarks import hlo
from benchmarks.gpu import cases
from benchmarks.gpu import floors
from benchmarks.gpu import profile
from benchmarks.gpu import speed


def _kernel(name, *, source='', times=1, flops=0, moved=0):
  return hlo.Kernel(
    name=name, source=source, times=times, flops=flops, bytes=moved
  )


def _plane(name, **lines):
  return types.SimpleNamespace(
    name=name,
    lines=[
      types.SimpleNamespace(
        name=line,
        events=[
          types.SimpleNamespace(
            name=kernel, duration_ns=ns, stats=[('hlo_op', op)] if op else []
          )
          for kernel, op, ns in events
        ],
      )
      for line, events in lines.items()
    ],
  )


_HOST = _plane('/host:CPU', thread=[('dot.1', 'dot.1', 7), ('Wait', '', 9)])


def test_only_streams_are_read_if_there_are_streams():
  card = _plane(
    '/device:GPU:0',
    **{
      'XLA Ops': [('dot.1', 'dot.1', 5)],
      'Stream #13(Compute)': [('gemm', 'dot.1', 5)],
      'Stream #14': [('Memset', '', 1)],
    },
  )
  assert [event.name for event in profile.events_of([_HOST, card])] == [
    'gemm',
    'Memset',
  ]
  derived = _plane('/device:GPU:0', **{'XLA Ops': [('dot.1', 'dot.1', 5)]})
  (event,) = profile.events_of([_HOST, derived])
  assert event == profile.Event('dot.1', 'dot.1', pytest.approx(5e-9))
  (event,) = profile.events_of([_HOST])
  assert event.seconds == pytest.approx(7e-9)


def test_events_are_added_up_by_kind():
  product = _kernel(
    'dot.1', source='jit(f)/jvp(Net)/conv/dot', flops=3 * 10**9, moved=2 * 10**6
  )
  copy = _kernel('fusion.2', source='jit(f)/add', times=2, moved=10**6)
  events = 2 * [
    # One operation that is two kernels on the card.
    profile.Event('gemm', 'dot.1', 3e-3),
    profile.Event('split_k', 'dot.1', 1e-3),
    profile.Event('add', 'while.3/fusion.2'.split('/')[-1], 1e-3),
    # Only the kernel's name tells the operation.
    profile.Event('fusion_2', '', 1e-3),
    profile.Event('Memset', '', 2e-3),
  ]
  found = profile.summarise(events, [product, copy, _kernel('rest.9')], steps=2)
  rows = {row['kind']: row for row in found['kinds']}
  assert list(rows) == [
    'products, forward',
    'optimizer and types',
    'unmatched',
    'all',
  ]
  first = rows['products, forward']
  assert first['launches'] == 2
  assert first['ms'] == pytest.approx(4)
  assert first['share'] == pytest.approx(0.5)
  assert first['gb_s'] == pytest.approx(2e6 / 4e-3 / 1e9)
  assert rows['optimizer and types']['gb'] == pytest.approx(2e-3)
  assert rows['all']['ms'] == pytest.approx(8)
  assert found['unmatched'] == {'Memset': pytest.approx(2)}
  assert found['unseen'] == ['rest.9']
  assert [row['name'] for row in found['longest']] == ['gemm', 'add']


def test_unreadable_operations_are_left_out():
  text = """\
%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %twice = f32[4]{0} add(%p, %p)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %odd = f32[4]{0} dot(%x, %x), in_a_new_way
  ROOT %loop = f32[4]{0} while(%odd), condition=%c, body=%body
}
"""
  kernels, loops, left_out = hlo.readable_kernels(text)
  assert [(kernel.name, kernel.times) for kernel in kernels] == [
    ('odd', 1),
    ('twice', 1),
  ]
  assert (loops, left_out) == (1, 1)
  with pytest.raises(ValueError, match='is not known'):
    hlo.kernels(text.replace('dot', 'add'))


def test_rows_have_shares_of_the_floors():
  ours, peer = speed.rows_of(
    cases.Case('class', 'step', 64),
    {'ours': 0.1, 'torch': 0.2},
    build_s={'ours': 60},
    figures={
      'ours': {'bytes': 10**11, 'flops': 4 * 10**13, 'peak_bytes': 2**31},
      'torch': None,
    },
    floors={'copy_gb_s': 2000, 'product_tflop_s': 800},
  )
  assert ours['ms'] == pytest.approx(100)
  assert ours['images_s'] == pytest.approx(640)
  assert ours['share_of_copy'] == pytest.approx(0.5)
  assert ours['share_of_product'] == pytest.approx(0.5)
  assert ours['peak_gib'] == 2
  assert peer['times_ours'] == 2
  assert peer['share_of_copy'] is None


def test_floors_are_above_zero():
  found = floors.Floors(gib=2**-16, side=16).figures()
  assert set(found) == {'copy_gb_s', 'product_tflop_s'}
  assert all(value > 0 for value in found.values())


@pytest.mark.long
def test_rehearsal(tmp_path):
  done, rows = main_job.visit(
    'speed', tmp_path, '--tiny', '--seconds=600', JAX_PLATFORMS='cpu'
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert not [row for row in rows if 'failed' in row]
  timed = [
    (row['net'], row['contestant'])
    for row in rows
    if 'ms' in row and 'contestant' in row
  ]
  assert timed == [
    ('class', 'ours'),
    ('class', 'straightforward'),
    ('coarse', 'ours'),
    ('coarse', 'straightforward'),
  ]
  found = json.loads((tmp_path / 'profile_class.json').read_text())
  assert found['longest']
  assert (tmp_path / 'hlo_class.txt.gz').stat().st_size
