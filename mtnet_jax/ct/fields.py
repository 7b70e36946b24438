"""The meaning of each field of predictions.json.

Lengths are in mm. Positions are in DICOM's patient coordinates (LPS: x to the
left, y to the back, z to the head). Indices start at 0, and slice 0 has the
lowest z.
"""

import textwrap

# Dotted name -> meaning. `points` and `failed` are lists, and the fields below
# are those of their entries. A test checks that no field is missing.
FIELDS: dict[str, str] = {
  'mtnet_jax': 'version of the package',
  'model': 'name of the model, or names of several joined by +',
  'made_with': 'what the results depend on, apart from the CT and the points',
  'made_with.model_fingerprint': (
    'hash of the config and weights; models with the same hash are the same'
  ),
  'made_with.ct_files': 'number of files of the CT',
  'made_with.symmetries': 'whether --symmetries was given',
  'made_with.annotated': (
    "the value of --annotated, 'all' or 'paper'; null with --points"
  ),
  'made_with.nifti': 'whether --nifti was given',
  'trained_on_simulated': (
    'whether the model was trained on SIMULATED attenuation'
  ),
  'simulated_ct': 'whether the attenuation of the CT is SIMULATED',
  'series_uid': "SeriesInstanceUID of the CT; '' if the file of --ct has none",
  'slices_rows_columns': 'size of the CT: number of slices, rows, columns',
  'pixel_spacing_mm': 'in-plane spacing of pixels, the same in both directions',
  'slice_spacing_mm': 'median spacing of slices',
  'files': 'names of the other files in this folder',
  'notes': 'doubts about all of the results',
  'lacks_segmentation': (
    'true if masks were found, but segmentation.dcm could not be made; a note'
    ' says why'
  ),
  'points': 'a record of each point at which a nodule was searched for',
  'points.id': 'as in the points file; with --annotated the nodule_id',
  'points.status': (
    "'ok'; 'nothing found' if the networks mark nothing; 'incomplete' if slices"
    ' were missing or broken, so that the mask may be cut off'
  ),
  'points.simulated_ct': 'as above',
  'points.trained_on_simulated': 'as above',
  'points.position_mm': 'the point, from the points file or of its voxel',
  'points.position_mm.x': 'to the left',
  'points.position_mm.y': 'to the back',
  'points.position_mm.z': 'to the head',
  'points.voxel': 'the voxel nearest to the point',
  'points.voxel.slice': "the point's slice; diameter and area refer to it",
  'points.voxel.row': 'its row',
  'points.voxel.col': 'its column',
  'points.patch_position_mm': 'the centre of the patch that was classified',
  'points.patch_position_mm.x': 'to the left',
  'points.patch_position_mm.y': 'to the back',
  'points.patch_position_mm.z': 'to the head',
  'points.patch_voxel': (
    'the centre of the patch that was classified: malignancy, Dice and picture'
    " refer to it. With --annotated it is the dataset's patch; with --points it"
    ' is on the slice with the largest outline, which may differ from the'
    " point's slice"
  ),
  'points.patch_voxel.slice': 'its slice',
  'points.patch_voxel.row': 'its row',
  'points.patch_voxel.col': 'its column',
  'points.malignancy_probability': (
    "the networks' probability, 0 to 1, that the readers suspect malignancy; it"
    ' does not predict pathology. In Python: prediction.malignancy'
  ),
  'points.malignancy_probability_members': (
    'the probability of each network and orientation that was averaged; absent'
    ' if nothing was averaged'
  ),
  'points.malignancy_probability_range': (
    'the smallest and the largest of these; absent if nothing was averaged'
  ),
  'points.mask': (
    "the Fine Seg-net's mask. On a slice where it reaches the edge of its patch"
    ' or fills more than half of it, it is no outline and not measured'
  ),
  'points.mask.diameter_mm': (
    "largest in-plane distance across the mask on the point's slice (maximum"
    ' Feret diameter); null if there is no mask, or no outline on that slice'
  ),
  'points.mask.area_mm2': (
    "area of the mask on the point's slice; null if the diameter is"
  ),
  'points.mask.volume_mm3': (
    'volume of the mask on the slices that are measured; null if the diameter'
    ' is, or if the mask continues farther than 30 mm from the point, as no'
    ' nodule does'
  ),
  'points.mask.volume_is_lower_bound': (
    'true if slices were not measured, or if the mask is cut off by missing'
    ' slices or the end of the series; null if the volume is'
  ),
  'points.mask.slices': (
    'number of slices of the mask; segmentation.dcm holds all of them'
  ),
  'points.mask.unmeasured_slices': (
    'slices that are not measured, because the mask is no outline there'
  ),
  'points.mask.lowest_slice': 'lowest slice of the mask; null without a mask',
  'points.mask.highest_slice': 'highest slice of the mask; null without a mask',
  'points.notes': 'doubts about this point',
  'points.readers': (
    "the LIDC-IDRI readers' annotations; only with --annotated, as are the two"
    ' Dice indices'
  ),
  'points.readers.num_readers': 'how many readers marked the nodule',
  'points.readers.consensus': 'share of readers who must mark a pixel',
  'points.readers.diameter_mm': 'mean of their largest in-plane diameters',
  'points.readers.malignancy_rating_mean': (
    'mean of their ratings, 1 (unlikely) to 5 (suspicious)'
  ),
  'points.readers.split': "the patient's split in lidc_nodules, such as train",
  'points.coarse_dice': (
    "Dice index of the Coarse Seg-net's whole mask in the patch, compared with"
    " the readers' mask"
  ),
  'points.fine_dice': "the same for the Fine Seg-net's mask",
  'points.figure': 'file name of its picture',
  'points.segment_number': (
    'number of its mask in segmentation.dcm and .nii.gz; absent without a mask'
  ),
  'failed': 'the points that could not be processed',
  'failed.id': 'as points.id, or the row of the points file',
  'failed.reason': 'why the point failed',
}


def text() -> str:
  """Returns the description of all fields, one paragraph per field."""
  return '\n'.join(
    [
      __doc__,
      *(
        textwrap.fill(f'{name}: {meaning}.', 79, subsequent_indent='    ')
        for name, meaning in FIELDS.items()
      ),
    ]
  )
