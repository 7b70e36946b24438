"""Packs a trained run into a bundle: a folder to send, and to restore from.

    python -m mtnet_jax.bundle --run=runs/demo --out=demo-bundle

A bundle holds what prediction needs and a model card, and nothing of training:
README.md (the model card), config.json, metrics.json, weights.safetensors, and
manifest.json with the SHA-256 of each, which is checked whenever the bundle is
opened. It opens anywhere, on one CPU or one GPU:

    model = mtnet_jax.load('demo-bundle')  # or a URL, such as gs://bucket/demo
    model.predict(hu, pixel_spacing_mm)
"""

import pathlib

from mtnet_jax.inference import bundles
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def main():
  parser = command_line.parser(__doc__, 'bundle')
  parser.add_argument(
    '--run', required=True, help='run directory of a finished training'
  )
  parser.add_argument('--out', **command_line.NEW_FOLDER)
  parser.add_argument(
    '--name', help="of the model (default: the run directory's)"
  )
  args = parser.parse_args()
  bundles.write(args.run, args.out, name=args.name)
  megabytes = sum(p.stat().st_size for p in pathlib.Path(args.out).iterdir())
  print(
    f'Written: {args.out} ({megabytes / 1e6:.1f} MB). What it is good for:'
    f' {args.out}/{bundles.CARD}\n'
    f'Anywhere: mtnet_jax.load({args.out!r})'
  )


if __name__ == '__main__':
  errors.exit_on_input_error(main)
