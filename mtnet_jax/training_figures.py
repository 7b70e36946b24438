"""Training curves of the report."""

from matplotlib import ticker

from mtnet_jax import figures


def training_curves(history, *, title, metric, metric_name, simulated):
  """Loss and selection metric of one stage, the kept epoch marked.

  Args:
    history: a row per epoch, of `train.Trainer.run`.
    title: what the stage is called.
    metric: the key by which the best epoch is chosen.
    metric_name: what that is called.
    simulated: whether the CT is.
  """
  figure, (above, below) = figures.with_axes(
    f'training of {title}', simulated=simulated, rows=2, sharex=True
  )
  epochs = [row['epoch'] for row in history]
  style = {'marker': '.', 'linewidth': 1.4, 'color': figures.BLUE}
  above.plot(epochs, [row['loss'] for row in history], **style)
  below.plot(epochs, [row[metric] for row in history], **style)
  kept = kept_row(history)
  for ax in (above, below):
    ax.axvline(
      kept['epoch'], color=figures.ORANGE, linestyle=':', linewidth=1.2
    )
  below.plot(
    kept['epoch'],
    kept[metric],
    'o',
    color=figures.ORANGE,
    label=f'kept: epoch {kept["epoch"]}, {kept[metric]:.3f}',
  )
  below.legend(fontsize=8)
  above.set_ylabel('training loss', fontsize=9)
  below.set_ylabel(f'validation {metric_name}', fontsize=9)
  below.set_xlabel('epoch')
  below.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  return figure


def kept_row(history):
  """The epoch whose variables were kept: the last that was the best yet."""
  return [row for row in history if row['best']][-1]
