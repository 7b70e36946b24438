"""Exports a trained model, to run without this package.

    python -m mtnet_jax.export --checkpoint=lidc-small --format=onnx --out=OUT

OUT/README.md shows how to call the export: HU patches and their spacing in,
masks and malignancy out, for any number of patches. Formats:

  pytorch    weights.safetensors with the names of the public weights of
             DeepLabv3+ and Xception, and mtnet.py, which needs only PyTorch to
             run and fine-tune them; `mtnet_jax.pretrained` reads them again
  onnx       mtnet.onnx, for onnxruntime and other ONNX runtimes; writing it
             needs the extra `onnx`
  stablehlo  a JAX program for CPU, CUDA and TPU, which needs JAX and
             safetensors; JAX guarantees to load it for about six months after
             the version that wrote it: keep the run or bundle to export again

All formats except stablehlo also export averages of runs and of symmetries.
"""

import os
import pathlib

from mtnet_jax.inference import bundles
from mtnet_jax.inference import onnx
from mtnet_jax.inference import pytorch
from mtnet_jax.inference import stablehlo
from mtnet_jax.storage import files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors

_WRITE = {
  'stablehlo': stablehlo.write,
  'pytorch': pytorch.write,
  'onnx': onnx.write,
}


def write(
  checkpoint: str | os.PathLike[str],
  out: str | os.PathLike[str],
  form: str = 'stablehlo',
) -> None:
  """Exports a model into a new folder.

  Args:
    checkpoint: run, bundle, URL or name of a shipped model, as for
      `bundles.load`.
    out: the folder to make.
    form: 'stablehlo', 'pytorch' or 'onnx'.

  Raises:
    errors.InputError: the model cannot be exported, or the folder not written.
  """
  if form == 'onnx':
    onnx.check_packages()
  with files.new_folder(out) as staged:
    # Absolute, so that the README's code runs in any working directory.
    path = pathlib.Path(out).absolute()
    _WRITE[form](bundles.load(checkpoint), staged, name=path)


def main() -> None:
  """Runs the command."""
  parser = command_line.parser(__doc__, 'export')
  parser.add_argument(
    '--checkpoint',
    required=True,
    type=command_line.path,
    help='run directory or bundle, a URL of one, or the name of a model that'
    ' comes with the package',
  )
  parser.add_argument('--out', **command_line.NEW_FOLDER)
  parser.add_argument(
    '--format',
    choices=tuple(_WRITE),
    default='stablehlo',
    help='format to write (default: %(default)s)',
  )
  args = parser.parse_args()
  write(args.checkpoint, args.out, args.format)
  print(f'Written: {args.out}. How to call it: {args.out}/README.md')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
