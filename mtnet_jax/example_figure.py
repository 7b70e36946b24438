"""The paper's figure 6: what each network makes of single nodules."""

from mtnet_jax import metrics
from mtnet_jax import overlays


def draw(examples, *, order, simulated, names=None):
  """Nodules in rows: CT, readers' mask, predictions, activation map.

  Args:
    examples: list of `examples.Example`, a row each, all of the same networks.
    order: by what they are best and worst.
    simulated: whether the CT is.
    names: of `tables.network_names`.
  """
  return overlays.draw(
    [_row(example) for example in examples],
    title=f'examples by {order}',
    simulated=simulated,
    names=names,
  )


def _row(example):
  record = example.record
  texts = [
    str(record['nodule_id']),
    f'{record["diameter_mm"]:.1f} mm, {metrics.LABELS[record["label"]]}',
    *(f'Dice {record[f"{name}_dice"]:.3f}' for name in example.masks),
  ]
  if example.cam is not None:
    texts.append(f'malignancy {record["malignancy_probability"]:.3f}')
  return overlays.Row(
    label=example.place,
    hu=example.image,
    truth=example.truth,
    masks=example.masks,
    cam=example.cam,
    texts=tuple(texts),
  )
