"""Tests that MONAI's networks have the data and the time of ours."""

import json
import types

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs the extra `interop`')
pytest.importorskip('monai', reason='needs the extra `interop`')

from benchmarks import peer_views  # noqa: E402
from benchmarks import peers_real  # noqa: E402
from mtnet_jax import metrics  # noqa: E402
from mtnet_jax.data import augment  # noqa: E402
from mtnet_jax.data import lidc  # noqa: E402
from mtnet_jax.evaluation import finished_run as finished_run_lib  # noqa: E402

pytestmark = pytest.mark.extra


def test_the_rate_has_a_warm_up_and_a_cosine_decay():
  assert peers_real.rate_at(0.025) == pytest.approx(0.5)
  assert peers_real.rate_at(0.05) == pytest.approx(1)
  # After half of the decay, and after a third: (1 + cos(pi / 3)) / 2.
  assert peers_real.rate_at(0.525) == pytest.approx(0.5)
  assert peers_real.rate_at(0.05 + 0.95 / 3) == pytest.approx(0.75)
  assert peers_real.rate_at(1.0) == pytest.approx(0, abs=1e-9)
  assert peers_real.rate_at(1.1) == pytest.approx(0, abs=1e-9)
  assert peers_real.rate_at(0.0) > 0


def test_budgets_are_the_times_of_the_stages():
  histories = {
    'coarse': [{'seconds': 5.0}, {'seconds': 2.0}],
    'fine': [{'seconds': 4.0}],
    'class': [{'seconds': 3.0}],
  }
  run = types.SimpleNamespace(histories=histories)
  assert peers_real.budgets(run) == {'fine': 11.0, 'class': 3.0}


def test_networks_of_monai():
  net = peers_real.make_net('fine')
  counts = [
    sum(x.numel() for x in peers_real.make_net(output).parameters())
    for output in ('fine', 'class')
  ]
  # DenseNet-121 has 7.98 million parameters in its paper, of which 1.02 million
  # belong to the 1000 classes.
  assert [round(count / 1e6, 1) for count in counts] == [1.6, 6.9]
  with torch.inference_mode():
    net.eval()
    image = torch.zeros(2, 1, 112, 112)
    assert net(image).shape == (2, 1, 112, 112)
    classifier = peers_real.make_net('class').eval()
    assert classifier(image).shape == (2, 1)


def test_the_moving_average_is_that_of_our_training():
  net, averaged = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
  with torch.no_grad():
    for module, value in ((net, 3.0), (averaged, 1.0)):
      module.weight.fill_(value)
      module.bias.fill_(value)
  # The decay is 3 / 12 at step 2, and 0.99 much later.
  peers_real._move_towards(net, averaged, 2, 0.99)
  assert averaged.weight.item() == pytest.approx(3 - 0.25 * 2)
  peers_real._move_towards(net, averaged, 10_000, 0.99)
  assert averaged.bias.item() == pytest.approx(3 - 0.99 * 0.5)


@pytest.mark.slow
def test_peers_write_records_like_those_of_a_run(
  tmp_path, finished_run, monkeypatch
):
  path, _ = finished_run
  ours = finished_run_lib.read(path)
  out = tmp_path / 'peers'
  # The budgets of a run of a few seconds.
  monkeypatch.setattr(
    peers_real, 'budgets', lambda run: {'fine': 2.0, 'class': 1.0}
  )
  peers_real.run(path, out, rate=1e-3)
  records = finished_run_lib.read_csv(out / 'records.csv')
  assert [r['nodule_id'] for r in records] == [
    r['nodule_id'] for r in ours.records
  ]
  for record in records:
    assert 0 <= record['malignancy_probability'] <= 1
    assert {f'fine_{name}' for name in metrics.SEGMENTATION} <= record.keys()
    assert 'coarse_dice' not in record
    assert record['simulated'] is True
  found = json.loads((out / 'peers.json').read_text())
  assert found['simulated'] is True
  for network, seconds in zip(found['networks'], (2.0, 1.0), strict=True):
    assert network['budget_s'] == seconds <= network['seconds']
    assert network['steps'] > 0
  before = (out / 'records.csv').stat().st_mtime_ns
  peers_real.run(path, out, rate=1e-3)
  assert (out / 'records.csv').stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_plain_view_is_that_of_evaluation(finished_run):
  config = finished_run_lib.read(finished_run[0]).config
  nodules = lidc.load_splits(config.dataset)['train'].take(slice(0, 3))
  views = peer_views.Views(nodules, config)
  images, masks, labels = views.batch(
    np.array([[2, 0], [0, 0]]), jax.random.key(0)
  )
  expected = augment.plain_images(
    nodules.image[[2, 0]], size=config.image_size, window=tuple(config.window)
  )
  np.testing.assert_allclose(
    images[:, 0].numpy(), np.asarray(expected)[..., 0], atol=1e-6
  )
  assert set(masks.unique().tolist()) <= {0.0, 1.0}
  assert labels[:, 0].tolist() == nodules.label[[2, 0]].tolist()
  np.testing.assert_array_equal(views.plain(2, 3)[0], images[0])
