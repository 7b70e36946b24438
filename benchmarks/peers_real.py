"""MONAI's networks on the nodules of a finished run, for as long as it took.

    pip install -e '.[interop]'
    python -m benchmarks.peers_real --run=runs/tables-small/mtnet/fold4 \\
        --out=runs/monai/fold4

A U-Net learns the masks for as many seconds as Coarse and Fine Seg-net learned
together, a DenseNet-121 malignancy for as many as Class-net. They see the same
nodules through the same augmentation, at the same size and in batches as large;
Adam's rate, which is `--learning_rate` at its highest, has the same warm-up and
cosine, over the time that they have; the weights are averaged as the run's are,
and those of the best epoch on the validation split are kept. The loss of the
U-Net is MONAI's sum of Dice and cross-entropy. Give both programs the same
cores, and nothing beside them: `taskset -c 0` before each.

OUT/records.csv has the columns of a run's own, the U-Net's masks as `fine`, and
OUT/peers.json the seconds, steps and versions.
"""

import copy
import math
import os
import pathlib
import platform
import time

from absl import app
from absl import flags
import jax
import numpy as np
import torch
from torch.nn import functional
import tqdm

from benchmarks import peer_views
from mtnet_jax import metrics
from mtnet_jax.data import augment
from mtnet_jax.data import feeding
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.storage import files
from mtnet_jax.system import errors

_RUN = flags.DEFINE_string('run', None, 'The finished run.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder for results.', required=True)
_RATE = flags.DEFINE_float('learning_rate', 1e-3, "Adam's, at its highest.")
_SHARE = flags.DEFINE_float(
  'share_of_time', 1.0, "How much of the run's time they have."
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of their weights and their order.')

# Output -> stages of ours whose time its network has.
TIME_OF = {'fine': ('coarse', 'fine'), 'class': ('class',)}
NAMES = {'fine': 'MONAI U-Net', 'class': 'MONAI DenseNet-121'}


def make_net(output):
  """The peer of an output, 'fine' or 'class', on one channel."""
  from monai.networks import nets

  if output == 'class':
    return nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
  # The widths of MONAI's own examples, with as many levels.
  return nets.UNet(
    spatial_dims=2,
    in_channels=1,
    out_channels=1,
    channels=(16, 32, 64, 128, 256),
    strides=(2, 2, 2, 2),
    num_res_units=2,
  )


def make_loss(output):
  """(logits, target) -> the mean loss of a batch."""
  from monai import losses

  if output == 'class':
    return functional.binary_cross_entropy_with_logits
  return losses.DiceCELoss(sigmoid=True)


def budgets(run):
  """Output -> seconds that the run's stages took."""
  return {
    output: sum(
      row['seconds'] for stage in stages for row in run.histories[stage]
    )
    for output, stages in TIME_OF.items()
  }


def rate_at(share):
  """The learning rate after a share of the time, over its highest."""
  warm_up = 0.05
  if share < warm_up:
    return max(share, 1e-3) / warm_up
  passed = min(1.0, (share - warm_up) / (1 - warm_up))
  return (1 + math.cos(math.pi * passed)) / 2


def predict(net, views, count, *, output, patch_size, batch_size=32):
  """Probabilities of nodules: (N,) of malignancy, or masks (N, P, P)."""
  net.eval()
  found = []
  with torch.inference_mode():
    for start in range(0, count, batch_size):
      stop = min(start + batch_size, count)
      probabilities = net(views.plain(start, stop)).sigmoid()
      if output == 'class':
        found.append(probabilities[:, 0].numpy())
      else:
        maps = probabilities[:, 0].numpy()
        found.append(np.asarray(augment.to_patch_grid(maps, patch_size)))
  return np.concatenate(found)


def validation_score(output, probabilities, nodules):
  """By what an epoch is chosen: the Jaccard index, or the AUC."""
  if output == 'class':
    found = metrics.classification_metrics(probabilities, nodules.label)
    return float(found['auc'])
  found = metrics.segmentation_metrics(
    probabilities >= metrics.THRESHOLD, nodules.mask
  )
  return float(np.mean(found['jaccard']))


def train(output, config, splits, *, seconds, rate, seed):
  """Trains a peer for some seconds, validations included.

  Args:
    output: 'fine' or 'class'.
    config: the run's.
    splits: name -> `nodules.Nodules`.
    seconds: that it has.
    rate: of Adam, the highest.
    seed: of weights and order.

  Returns:
    The network with the weights of its best epoch, and what to say of it: a
    dict of seconds, steps, parameters and the best score on validation.
  """
  torch.manual_seed(seed)
  train_split, validation = splits['train'], splits['validation']
  stage = config.class_stage if output == 'class' else config.fine_stage
  if output == 'class':
    train_split, validation = train_split.labelled(), validation.labelled()
  views = peer_views.Views(train_split, config)
  validated = peer_views.Views(validation, config)
  net, loss_of = make_net(output), make_loss(output)
  averaged = copy.deepcopy(net)
  optimizer = torch.optim.Adam(net.parameters(), lr=rate)
  best, step, epoch = None, 0, 0
  started = time.perf_counter()
  with tqdm.tqdm(total=round(seconds), unit='s', desc=NAMES[output]) as bar:
    while time.perf_counter() - started < seconds:
      orders = feeding.epoch_order(
        len(train_split),
        views=config.views_per_image,
        batch_size=stage.batch_size,
        seed=(seed, epoch),
      )
      net.train()
      for order in np.split(orders, len(orders) // stage.batch_size):
        passed = time.perf_counter() - started
        if passed > seconds:
          break
        bar.update(round(passed) - bar.n)
        for group in optimizer.param_groups:
          group['lr'] = rate * rate_at(passed / seconds)
        key = jax.random.fold_in(jax.random.key(seed), step)
        images, masks, labels = views.batch(order, key)
        optimizer.zero_grad()
        loss = loss_of(net(images), labels if output == 'class' else masks)
        loss.backward()
        optimizer.step()
        _move_towards(net, averaged, step, config.weight_average)
        step += 1
      epoch += 1
      score = validation_score(
        output,
        predict(
          averaged,
          validated,
          len(validation),
          output=output,
          patch_size=validation.mask.shape[1],
        ),
        validation,
      )
      if best is None or score > best[0]:
        best = score, epoch, copy.deepcopy(averaged.state_dict())
  net.load_state_dict(best[2])
  return net, {
    'network': NAMES[output],
    'parameters': sum(x.numel() for x in net.parameters()),
    'budget_s': seconds,
    'seconds': time.perf_counter() - started,
    'steps': step,
    'epochs': epoch,
    'best_epoch': best[1],
    'validation_score': best[0],
  }


def _move_towards(net, averaged, step, decay):
  """The moving average of the weights, as in `mtnet_jax.training.step`."""
  decay = min(decay, (1 + step) / (10 + step))
  with torch.no_grad():
    for mean, x in zip(
      averaged.state_dict().values(), net.state_dict().values(), strict=True
    ):
      if mean.is_floating_point():
        mean.lerp_(x, 1 - decay)
      else:
        mean.copy_(x)


def run(path, out, *, rate, share_of_time=1.0, seed=0):
  """Trains both peers beside a finished run, and writes their records."""
  ours = finished_run.read(path)
  out = pathlib.Path(out)
  if (out / 'peers.json').exists():
    print(f'{out} is finished.')
    return
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  config = ours.config
  splits = lidc.load_splits(config.dataset)
  if nodules_lib.fingerprint(splits) != config.dataset.fingerprint:
    raise errors.InputError(
      f'{config.dataset.name} was built anew since {path} was trained: its'
      ' nodules are others.'
    )
  test = splits['test']
  found, outputs = [], {}
  for output, seconds in budgets(ours).items():
    net, facts = train(
      output,
      config,
      splits,
      seconds=seconds * share_of_time,
      rate=rate,
      seed=seed,
    )
    outputs[output] = predict(
      net,
      peer_views.Views(test, config),
      len(test),
      output=output,
      patch_size=test.mask.shape[1],
    )
    found.append(facts)
    print(facts)
  files.make_folder(out)
  files.write_csv(out / 'records.csv', records_lib.make_records(test, outputs))
  files.write_json(
    out / 'peers.json',
    {
      'beside': str(path),
      'dataset': config.dataset.name,
      'simulated': test.simulated,
      'fingerprint': config.dataset.fingerprint,
      'share_of_time': share_of_time,
      'learning_rate': rate,
      'networks': found,
      'cores': len(os.sched_getaffinity(0)),
      'machine': platform.machine(),
      'torch': torch.__version__,
      'monai': _monai_version(),
    },
  )


def _monai_version():
  import monai

  return monai.__version__


def main(_):
  errors.exit_on_input_error(
    lambda: run(
      _RUN.value,
      _OUT.value,
      rate=_RATE.value,
      share_of_time=_SHARE.value,
      seed=_SEED.value,
    )
  )


if __name__ == '__main__':
  app.run(main)
