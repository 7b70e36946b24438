"""What `predict` reports about a nodule: a record, and a row of a table.

No text of the CT's header is in them.
"""

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.ct import components
from mtnet_jax.reports import nodule_page
from mtnet_jax.reports import overlays
from mtnet_jax.storage import seen as seen_lib

_EDGE_MIDPOINTS = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])


def make(place, nodule, volume, *, trained_on_simulated, seen=None):
  """The record of one nodule.

  Args:
    place: `places.Place`.
    nodule: `follow.Nodule`.
    volume: `volume.Volume`.
    trained_on_simulated: whether the networks were.
    seen: `seen.Seen`, what the networks have; None where the patient is nobody
      that they could have.

  Returns:
    A dict that JSON can hold; lengths in mm, indices from 0.
  """
  k, row, col = nodule.view.voxel
  record = {
    'id': place.place_id,
    'status': _status(nodule),
    'simulated_ct': volume.simulated,
    'trained_on_simulated': trained_on_simulated,
    'position_mm': _named('xyz', place.position_mm),
    'voxel': _named(('slice', 'row', 'col'), place.voxel),
    # The patch of which malignancy and figure are.
    'patch_position_mm': _named('xyz', volume.to_mm((k, row, col))),
    'patch_voxel': {'slice': k, 'row': row, 'col': col},
    'malignancy': _round(nodule.view.malignancy),
    'mask': _sizes(nodule.pixels, volume),
    'notes': [
      *nodule.notes,
      *(f'the mask may be cut off: {error}' for error in nodule.missing),
    ],
  }
  members = nodule.view.malignancy_members
  if members:
    record['malignancy_range'] = [_round(min(members)), _round(max(members))]
    record['malignancy_members'] = [_round(member) for member in members]
  record['notes'] += _what_was_seen(place, seen)
  if place.truth is not None:
    record['readers'] = place.readers
    for name in ('coarse', 'fine'):
      record[f'{name}_dice'] = dice(getattr(nodule.view, name), place.truth)
  return record


def _what_was_seen(place, seen):
  """A clause where the networks have seen the patient."""
  if seen is None or not place.patient_id:
    return []
  use = seen_lib.patients(seen).get(place.patient_id)
  if not use:
    return []
  by = 'trained on' if use == 'train' else 'chosen by'
  if seen.by_fold:
    return [f'the model was {by} its patient (by fold: it keeps no list)']
  own = seen_lib.nodules(seen).get(place.place_id) == use
  what = 'this nodule' if own else 'other nodules of its patient'
  return [f'the model was {by} {what}']


def dice(mask, truth):
  """Dice of two (P, P) masks, as `evaluate` computes it."""
  counts = metrics.pixel_counts(mask[None], truth[None])
  return float(metrics.segmentation_from_counts(counts)['dice'][0])


def _status(nodule):
  if nodule.missing:
    return 'incomplete'
  return 'ok' if nodule.pixels else 'nothing found'


def _sizes(pixels, volume):
  """Area and diameter are the largest on any slice."""
  if not pixels:
    return {'area_mm2': 0.0, 'diameter_mm': 0.0, 'volume_mm3': 0.0, 'slices': 0}
  slices = sorted(pixels)
  areas = [len(pixels[k]) for k in slices]
  spacing = volume.pixel_spacing_mm
  return {
    'area_mm2': _round(max(areas) * spacing**2),
    'diameter_mm': _round(max(diameter_mm(pixels[k], spacing) for k in slices)),
    'volume_mm3': _round(
      volume_mm3(areas, volume.thickness_mm(slices), spacing)
    ),
    'slices': len(slices),
    'lowest_slice': slices[0],
    'highest_slice': slices[-1],
  }


def _named(names, values):
  return {n: _round(v) for n, v in zip(names, values, strict=True)}


def _round(value):
  return round(float(value), 4) if isinstance(value, float) else int(value)


def picture(place, nodule, record):
  """The row of a figure."""
  texts = [
    f'z={record["patch_position_mm"]["z"]:g} mm,'
    f' slice {record["patch_voxel"]["slice"]}',
    '',
    f'{record["mask"]["diameter_mm"]:.1f} mm,'
    f' {record["mask"]["volume_mm3"]:.0f} mm³',
    f'malignancy {record["malignancy"]:.3f}',
  ]
  if place.truth is not None:
    readers = place.readers
    texts.insert(
      1,
      f'{readers["diameter_mm"]:.1f} mm, rated'
      f' {readers["malignancy_rating_mean"]:.1f} of 5',
    )
    texts[2] = f'Dice {record["coarse_dice"]:.3f}'
    texts[3] = f'Dice {record["fine_dice"]:.3f}'
  members = nodule.view.malignancy_members
  if members:
    texts.append(f'{len(members)} say {min(members):.3f} to {max(members):.3f}')
  return overlays.Row(
    label='',
    hu=nodule.view.hu,
    truth=place.truth,
    masks={'coarse': nodule.view.coarse, 'fine': nodule.view.fine},
    cam=nodule.view.cam,
    uncertainty=nodule.view.uncertainty,
    texts=tuple(texts),
  )


def slices(place, nodule, volume, record):
  """What the page shows, slice by slice, the highest first.

  Args:
    place, nodule, volume: as for `make`.
    record: what it made.

  Returns:
    A `nodule_page.Nodule`.
  """
  shown = {
    k: _slice(place, nodule, volume, view)
    for k, view in sorted(nodule.views.items(), reverse=True)
  }
  return nodule_page.Nodule(
    record=record,
    slices=list(shown.values()),
    judged=list(shown).index(nodule.view.voxel[0]),
    cam=nodule.view.cam,
    uncertainty=nodule.view.uncertainty,
  )


def _slice(place, nodule, volume, view):
  k = view.voxel[0]
  outlines, note = {}, 'not counted' if view.fine.any() else 'no mask'
  # The readers' mask is of one patch.
  if place.truth is not None and view is nodule.view:
    outlines['readers'] = place.truth
  outlines['coarse'] = view.coarse
  fine = np.zeros_like(view.fine)
  if k in nodule.pixels:
    fine = components.mask_of(view, nodule.pixels[k])
    diameter = diameter_mm(nodule.pixels[k], volume.pixel_spacing_mm)
    note = f'{diameter:.1f} mm'
  outlines['left-out'] = view.fine & ~fine
  outlines['fine'] = fine
  title = f'slice {k}, z = {volume.z_mm[k]:g} mm'
  return nodule_page.Slice(title, view.hu, outlines, note)


def table(records):
  """Records as text, a line each."""
  width = max(5, *(len(record['id']) for record in records))
  with_truth = 'fine_dice' in records[0]
  lines = [
    f'{"id":<{width}}  diameter  volume     malignancy'
    + ('  Dice coarse  fine' if with_truth else '')
  ]
  for record in records:
    mask = record['mask']
    line = (
      f'{record["id"]:<{width}}  {mask["diameter_mm"]:5.1f} mm'
      f'  {mask["volume_mm3"]:6.0f} mm3  {record["malignancy"]:.3f}     '
    )
    if with_truth:
      line += f'  {record["coarse_dice"]:.3f}        {record["fine_dice"]:.3f}'
    lines.append('  '.join([line.rstrip(), *record['notes']]))
  return '\n'.join(lines)


def diameter_mm(pixels, pixel_spacing_mm):
  """The largest distance across a mask (maximum Feret diameter).

  Measured between the midpoints of the pixels' edges, where an outline at
  half height runs, as scikit-image's `feret_diameter_max` does: one pixel is
  one pixel wide.

  Args:
    pixels: (n, 2) row and column of each; n may be 0.
    pixel_spacing_mm: in both directions.

  Returns:
    mm; 0 without a pixel.
  """
  if not len(pixels):
    return 0.0
  # Only the first and the last pixel of a row can be corners of the outline.
  by_row = pixels[np.lexsort((pixels[:, 1], pixels[:, 0]))]
  changes = np.diff(by_row[:, 0]) != 0
  ends = by_row[np.append(changes, True) | np.append(True, changes)]
  outline = (ends[:, None] + _EDGE_MIDPOINTS).reshape(-1, 2)
  distances = np.linalg.norm(outline[:, None] - outline, axis=-1)
  return float(distances.max() * pixel_spacing_mm)


def volume_mm3(areas_px, thickness_mm, pixel_spacing_mm):
  """Volume of a stack of masks.

  Args:
    areas_px: pixels on each slice.
    thickness_mm: of each of these slices: half the way to the slice below
      plus half the way to the one above.
    pixel_spacing_mm: in both directions.
  """
  return float(np.dot(areas_px, thickness_mm) * pixel_spacing_mm**2)
