"""Pictures of nodules: their panels, titles and legends."""

from matplotlib.backends import backend_agg
import numpy as np
import pytest

from mtnet_jax.reports import overlays

_NAMES = ['Coarse Seg-net', 'Fine Seg-net', 'Class-net activation']


def _row(truth):
  mask = np.zeros((64, 64), bool)
  mask[20:30, 20:30] = True
  return overlays.Row(
    label='',
    hu=np.zeros((64, 64)),
    truth=mask if truth else None,
    # The second mask is empty, so it has no contour.
    masks={'coarse': mask, 'fine': ~mask & False},
    cam=np.zeros((64, 64)),
    texts=('$5', 'b', 'c', 'd', 'e')[: 4 + truth],
  )


@pytest.mark.parametrize('truth', [False, True])
def test_panels(truth):
  figure = overlays.draw([_row(truth)] * 2, title='x', simulated=False)
  assert len(figure.axes) == 2 * (4 + truth)
  titles = [ax.get_title() for ax in figure.axes[: 4 + truth]]
  assert titles == ['CT', *['readers'] * truth, *_NAMES]
  assert figure.axes[0].get_xlabel() == '$5'
  figure.canvas.draw()  # A $ must not start a formula.


def test_the_colours_of_the_activation_map_are_explained():
  cam = np.zeros((64, 64))
  cam[1, 1], cam[2, 2] = -1, 1  # for benign, for malignant
  figure = overlays.draw(
    [_row(True)._replace(cam=cam)], title='x', simulated=False
  )
  (legend,) = figure.legends
  colors = {
    text.get_text().split()[-1]: patch.get_facecolor()[:3]
    for text, patch in zip(
      legend.get_texts(), legend.get_patches(), strict=True
    )
  }
  drawn = figure.axes[-1].images[-1]
  for name, at in (('benign', (1, 1)), ('malignant', (2, 2))):
    np.testing.assert_allclose(
      drawn.cmap(drawn.norm(cam[at]))[:3], colors[name]
    )
  # The legend is below the pictures and their texts.
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  renderer = canvas.get_renderer()
  top = legend.get_window_extent(renderer).y1
  assert top <= min(
    ax.xaxis.label.get_window_extent(renderer).y0 for ax in figure.axes
  )
  without = overlays.draw(
    [_row(True)._replace(cam=None, texts=('a', 'b', 'c', 'd'))],
    title='x',
    simulated=False,
  )
  assert not without.legends


def test_disagreement_has_a_panel():
  row = _row(True)._replace(uncertainty=np.eye(64) / 2)
  figure = overlays.draw(
    [row._replace(texts=(*row.texts, ''))], title='x', simulated=False
  )
  last = figure.axes[-1]
  assert last.get_title().startswith('disagreement')
  np.testing.assert_array_equal(last.images[-1].get_array(), np.eye(64) / 2)


@pytest.mark.parametrize('simulated', [False, True])
def test_simulated_is_in_the_title(simulated):
  figure = overlays.draw([_row(False)], title='x', simulated=simulated)
  assert ('SIMULATED' in figure.get_suptitle()) is simulated
