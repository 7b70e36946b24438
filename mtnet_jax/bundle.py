"""Packs a trained run into a bundle: a folder to share and to load models from.

    python -m mtnet_jax.bundle --run=runs/demo --out=demo-bundle

A bundle holds what prediction needs, without the training state: README.md (the
model card, after metadata for the Hugging Face Hub), config.json, metrics.json,
weights.safetensors, seen.csv (ids of the nodules and patients used in training
or model selection), and manifest.json with the SHA-256 of each file, which is
checked whenever the bundle is loaded. It loads on any machine, on one CPU or
one GPU:

    model = mtnet_jax.load('demo-bundle')  # or gs://bucket/demo, hf://owner/demo
    model.predict(hu, pixel_spacing_mm)

Several runs make one model that averages them. --calibrate fits the
probabilities of malignancy to the validation nodules. Both need the results of
`mtnet_jax.evaluate`, which the card shows:

    python -m mtnet_jax.evaluate --workdir A B --symmetries --split=validation
    python -m mtnet_jax.evaluate --workdir A B --symmetries --split=test
    python -m mtnet_jax.bundle --run A B --symmetries --calibrate --out=OUT
"""

import pathlib

from mtnet_jax.storage import bundle_files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def main() -> None:
  """Runs the command."""
  parser = command_line.parser(__doc__, 'bundle')
  parser.add_argument(
    '--run',
    required=True,
    nargs='+',
    type=command_line.path,
    help='run directory of a finished training; several are averaged',
  )
  parser.add_argument('--out', **command_line.NEW_FOLDER)
  parser.add_argument(
    '--name', help="name of the model (default: the first run directory's)"
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
    help="nodules to omit from the card's results and the calibration",
  )
  parser.add_argument(
    '--note', default='', help='a paragraph for the card, about the data'
  )
  parser.add_argument(
    '--license',
    metavar='ID',
    help='licence of the model, as an identifier of the Hugging Face Hub:'
    ' apache-2.0, cc-by-4.0, other, ... (default: that of the bundle in --run,'
    ' or `unknown`, which permits nothing)',
  )
  args = parser.parse_args()
  # Importing packing takes seconds, which --help and wrong flags should not.
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
    f'Written: {args.out} ({megabytes / 1e6:.1f} MB). Model card:'
    f' {args.out}/{bundle_files.CARD}\n'
    f'To load it: mtnet_jax.load({args.out!r})'
  )


if __name__ == '__main__':
  errors.exit_on_input_error(main)
