"""What each field of predictions.json means.

Lengths are in mm, positions in the patient's coordinates of DICOM (LPS: x to
the left, y to the back, z to the head), and indices from 0; slice 0 is that of
the lowest z.
"""

import textwrap

# Dotted name -> what it means. Fields of `points` and `failed` are of each of
# their entries. Kept complete by a test.
FIELDS = {
  'mtnet_jax': 'version of the package',
  'model': 'name of the model; of several, their names with + between',
  'made_with': 'what the results follow from, beside the CT and the points',
  'made_with.model_fingerprint': (
    'hash of the config and weights: two models with the same one are the same'
  ),
  'made_with.ct_files': 'number of files of the CT that were found',
  'made_with.symmetries': 'whether --symmetries was given',
  'made_with.annotated': (
    "the selection of --annotated, 'all' or 'paper'; null with --points"
  ),
  'made_with.nifti': 'whether --nifti was given',
  'trained_on_simulated': (
    'whether the model was trained on SIMULATED attenuation'
  ),
  'simulated_ct': 'whether the attenuation of the CT is SIMULATED',
  'series_uid': "SeriesInstanceUID of the CT; '' where a file of --ct has none",
  'slices_rows_columns': 'size of the CT: number of slices, rows, columns',
  'pixel_spacing_mm': 'in-plane distance of pixels, the same both ways',
  'slice_spacing_mm': 'median distance of slices',
  'files': 'names of the other files in this folder',
  'notes': 'on all of the results, a clause each',
  'lacks_segmentation': (
    'true where masks were found and no segmentation.dcm could be made of them;'
    ' a note says why'
  ),
  'points': 'a record of each point that was looked at',
  'points.id': 'as in the points file; of --annotated the nodule_id',
  'points.status': (
    "'ok'; 'nothing found' where the networks mark nothing; 'incomplete' where"
    ' slices were missing or broken, so that the mask may be cut off'
  ),
  'points.simulated_ct': 'as above',
  'points.trained_on_simulated': 'as above',
  'points.position_mm': 'the point: as given, or of its voxel',
  'points.position_mm.x': 'to the left',
  'points.position_mm.y': 'to the back',
  'points.position_mm.z': 'to the head',
  'points.voxel': 'the voxel nearest to the point',
  'points.voxel.slice': "the point's slice, on which diameter and area are",
  'points.voxel.row': 'its row',
  'points.voxel.col': 'its column',
  'points.patch_position_mm': 'where the patch that was judged has its centre',
  'points.patch_position_mm.x': 'to the left',
  'points.patch_position_mm.y': 'to the back',
  'points.patch_position_mm.z': 'to the head',
  'points.patch_voxel': (
    'the centre of the patch that was judged: malignancy, Dice and picture are'
    " of it. With --annotated it is the dataset's own; else it is on the slice"
    ' with the largest outline, which need not be that of the point'
  ),
  'points.patch_voxel.slice': 'its slice',
  'points.patch_voxel.row': 'its row',
  'points.patch_voxel.col': 'its column',
  'points.malignancy_probability': (
    "the networks' probability, 0 to 1, of the readers' suspicion; no"
    " pathologist's finding. prediction.malignancy in Python"
  ),
  'points.malignancy_probability_members': (
    'of each network and orientation that was averaged; absent where nothing'
    ' was'
  ),
  'points.malignancy_probability_range': (
    'the smallest and the largest of them; absent likewise'
  ),
  'points.mask': (
    "the Fine Seg-net's mask. One that reaches the edge of its patch on a"
    ' slice, or fills more than half of it, is no outline there'
  ),
  'points.mask.diameter_mm': (
    "largest in-plane distance across the mask on the point's slice (maximum"
    ' Feret diameter); null where there is no mask, or no outline on that slice'
  ),
  'points.mask.area_mm2': (
    "area of the mask on the point's slice; null likewise"
  ),
  'points.mask.volume_mm3': (
    'volume of the mask on the slices where it is an outline; null likewise,'
    ' and where the mask goes on farther than 30 mm from the point, as no'
    ' nodule does'
  ),
  'points.mask.volume_is_lower_bound': (
    'true where slices were not counted, or the mask is cut off, by missing'
    ' slices or at the end of the series; null where the volume is'
  ),
  'points.mask.slices': (
    'number of slices of the mask, all of which segmentation.dcm holds'
  ),
  'points.mask.unmeasured_slices': (
    'which of them count for no size, as the mask is no outline there'
  ),
  'points.mask.lowest_slice': 'of the mask; null where there is none',
  'points.mask.highest_slice': 'of the mask; null where there is none',
  'points.notes': 'on the point, a clause each',
  'points.readers': (
    'what the readers of LIDC-IDRI say; with --annotated only, as are the two'
    ' Dice'
  ),
  'points.readers.num_readers': 'how many marked the nodule',
  'points.readers.consensus': 'share of them that makes a pixel of their mask',
  'points.readers.diameter_mm': 'mean of their largest in-plane diameters',
  'points.readers.malignancy_rating_mean': (
    'mean of their ratings, 1 (unlikely) to 5 (suspicious)'
  ),
  'points.readers.split': "the patient's in lidc_nodules: train, ...",
  'points.coarse_dice': (
    "Dice of the Coarse Seg-net's whole mask in the patch with the readers'"
  ),
  'points.fine_dice': "Dice of the Fine Seg-net's, likewise",
  'points.figure': 'name of its picture',
  'points.segment_number': (
    'of its mask in segmentation.dcm and .nii.gz; absent without a mask'
  ),
  'failed': 'the points that could not be looked at',
  'failed.id': 'as of points, or the row',
  'failed.reason': 'why not',
}


def text():
  """The fields, a paragraph each."""
  return '\n'.join(
    [
      __doc__,
      *(
        textwrap.fill(f'{name}: {meaning}.', 79, subsequent_indent='    ')
        for name, meaning in FIELDS.items()
      ),
    ]
  )
