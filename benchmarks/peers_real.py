r"""Trains MONAI's networks on the nodules of a finished run, in equal time.

    pip install -e '.[interop]'
    python -m benchmarks.peers_real --run=runs/tables-small/mtnet/fold4 \
        --out=runs/monai/fold4

A U-Net learns the masks for as many seconds as Coarse and Fine Seg-net
together. A DenseNet-121 learns malignancy for as many seconds as Class-net.
Nodules, augmentation, image size and batch sizes are those of the run. Adam's
learning rate has the same warm-up and cosine decay, over the available time,
with the peak `--learning_rate`. The weights are averaged as in the run, and
those of the best epoch on the validation split are kept. The loss of the U-Net
is MONAI's sum of Dice and cross-entropy. For a fair comparison, run both
programs on the same cores without other load: `taskset -c 0` before each
command.

OUT/records.csv has the columns of a run's records, with the U-Net's masks as
`fine`. OUT/peers.json has the seconds, steps and versions.
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
_RATE = flags.DEFINE_float(
  'learning_rate', 1e-3, "Peak of Adam's learning rate."
)
_SHARE = flags.DEFINE_float(
  'share_of_time', 1.0, "Training time, as a share of the run's."
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of weights and order.')

# Output -> the stages of ours whose total time is its time budget.
TIME_OF = {'fine': ('coarse', 'fine'), 'class': ('class',)}
NAMES = {'fine': 'MONAI U-Net', 'class': 'MONAI DenseNet-121'}


def make_net(output):
  """Makes the network for an output, 'fine' or 'class', with one channel."""
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
  """Returns the loss function, (logits, target) -> mean loss of a batch."""
  from monai import losses

  if output == 'class':
    return functional.binary_cross_entropy_with_logits
  return losses.DiceCELoss(sigmoid=True)


def budgets(run):
  """Returns output -> seconds that the run's stages took."""
  return {
    output: sum(
      row['seconds'] for stage in stages for row in run.histories[stage]
    )
    for output, stages in TIME_OF.items()
  }


def rate_at(share):
  """Returns the learning rate over its peak after a share of the time."""
  warm_up = 0.05
  if share < warm_up:
    return max(share, 1e-3) / warm_up
  progress = min(1.0, (share - warm_up) / (1 - warm_up))
  return (1 + math.cos(math.pi * progress)) / 2


def predict(net, views, count, *, output, patch_size, batch_size=32):
  """Predicts probabilities: of malignancy (N,), or of masks (N, P, P)."""
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
  """Returns the score that selects an epoch: the Jaccard index, or the AUC."""
  if output == 'class':
    scores = metrics.classification_metrics(probabilities, nodules.label)
    return float(scores['auc'])
  scores = metrics.segmentation_metrics(
    probabilities >= metrics.THRESHOLD, nodules.mask
  )
  return float(np.mean(scores['jaccard']))


def train(output, config, splits, *, seconds, rate, seed):
  """Trains a peer for a number of seconds, validations included.

  Args:
    output: 'fine' or 'class'.
    config: config of the run.
    splits: split name -> `nodules.Nodules`.
    seconds: the training time.
    rate: peak of Adam's learning rate.
    seed: seed of weights and order.

  Returns:
    The network with the weights of its best epoch, and a dict of seconds,
    steps, number of parameters and the best validation score.
  """
  torch.manual_seed(seed)
  train_split, validation = splits['train'], splits['validation']
  stage = config.class_stage if output == 'class' else config.fine_stage
  if output == 'class':
    train_split, validation = train_split.labelled(), validation.labelled()
  views = peer_views.Views(train_split, config)
  validation_views = peer_views.Views(validation, config)
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
        elapsed_s = time.perf_counter() - started
        if elapsed_s > seconds:
          break
        bar.update(round(elapsed_s) - bar.n)
        for group in optimizer.param_groups:
          group['lr'] = rate * rate_at(elapsed_s / seconds)
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
          validation_views,
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
  """Updates the moving average of the weights, as `mtnet_jax.training.step`."""
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
  """Trains both peers of a finished run, and writes their records.

  Args:
    path: directory of the run.
    out: folder for the results.
    rate: peak of Adam's learning rate.
    share_of_time: training time, as a share of the run's.
    seed: seed of weights and order.

  Raises:
    errors.InputError: the dataset has other nodules than the run's.
  """
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
      f'{config.dataset.name} was rebuilt after {path} was trained, with other'
      ' nodules: train the run again, or restore its dataset.'
    )
  test = splits['test']
  networks, outputs = [], {}
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
    networks.append(facts)
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
      'networks': networks,
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
  """Runs the command."""
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
