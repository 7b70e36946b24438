"""Packs a trained run into a bundle: a folder to send, and to restore from.

    python -m mtnet_jax.bundle --run=runs/demo --out=demo-bundle

A bundle holds what prediction needs and a model card, and nothing of training:
README.md (the model card, which begins with what the Hugging Face Hub reads),
config.json, metrics.json, weights.safetensors, seen.csv (ids of the nodules and
patients that it was trained on or chosen by), and manifest.json with the
SHA-256 of each, which is checked whenever the bundle is opened. It opens
anywhere, on one CPU or one GPU:

    model = mtnet_jax.load('demo-bundle')  # or gs://bucket/demo, hf://owner/demo
    model.predict(hu, pixel_spacing_mm)

Several runs make one model that averages them, and with --calibrate its
probabilities of malignancy fit the validation nodules. Both need the results of
`mtnet_jax.evaluate`, which the card shows:

    python -m mtnet_jax.evaluate --workdir A B --symmetries --split=validation
    python -m mtnet_jax.evaluate --workdir A B --symmetries --split=test
    python -m mtnet_jax.bundle --run A B --symmetries --calibrate --out=OUT
"""

import pathlib

from mtnet_jax.storage import bundle_files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def main():
  parser = command_line.parser(__doc__, 'bundle')
  parser.add_argument(
    '--run',
    required=True,
    nargs='+',
    type=command_line.path,
    help='run directory of a finished training; of several, their average',
  )
  parser.add_argument('--out', **command_line.NEW_FOLDER)
  parser.add_argument(
    '--name', help="of the model (default: the first run directory's)"
  )
  parser.add_argument('--symmetries', **command_line.SYMMETRIES)
  parser.add_argument(
    '--calibrate',
    action='store_true',
    help='divide the logits of malignancy by the temperature that fits the'
    ' validation split best',
  )
  parser.add_argument(
    '--float16',
    action='store_true',
    help='write weights in half precision: half the size',
  )
  parser.add_argument(
    '--leave_out',
    nargs='+',
    default=[],
    metavar='NODULE_ID',
    help="nodules that the card's results do not count",
  )
  parser.add_argument(
    '--note', default='', help='a paragraph for the card, about the data'
  )
  parser.add_argument(
    '--license',
    metavar='ID',
    help='licence that you give the model, as the Hugging Face Hub writes it:'
    ' apache-2.0, cc-by-4.0, other, ... (default: what a bundle has already, or'
    ' else `unknown`, which permits nothing)',
  )
  args = parser.parse_args()
  # Metrics bring scikit-learn, which is not needed to say what is wrong above.
  from mtnet_jax.inference import packing

  packing.write(
    args.run,
    args.out,
    name=args.name,
    symmetries=args.symmetries,
    float16=args.float16,
    calibrate=args.calibrate,
    leave_out=args.leave_out,
    note=args.note,
    license=args.license,
  )
  megabytes = sum(p.stat().st_size for p in pathlib.Path(args.out).iterdir())
  print(
    f'Written: {args.out} ({megabytes / 1e6:.1f} MB). What it is good for:'
    f' {args.out}/{bundle_files.CARD}\n'
    f'Anywhere: mtnet_jax.load({args.out!r})'
  )


if __name__ == '__main__':
  errors.exit_on_input_error(main)
