"""Writes a trained model for other programs, to run without this package.

    python -m mtnet_jax.export --checkpoint=lidc-small --format=onnx --out=OUT

OUT/README.md shows how to call it: HU patches and their spacing in, masks and
malignancy out, for any number of patches. Formats:

  pytorch    weights.safetensors under the public names of DeepLabv3+ and
             Xception, and mtnet.py, which runs them and trains them on with
             nothing but PyTorch; see `mtnet_jax.pretrained` for the way back
  onnx       mtnet.onnx, for onnxruntime and what else reads it; needs the
             extra `onnx`
  stablehlo  a program of JAX for CPU, CUDA and TPU, which needs JAX and
             safetensors; JAX opens it for about six months after the version
             that wrote it: keep the run or its bundle, and export again

Averages (of runs, of symmetries) are exported as they are, except as stablehlo.
"""

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


def write(checkpoint, out, form='stablehlo'):
  """Exports a model into a new folder.

  Args:
    checkpoint: as `bundles.load` takes it.
    out: the folder to make.
    form: 'stablehlo', 'pytorch' or 'onnx'.

  Raises:
    errors.InputError: the model cannot be used, or the folder not written.
  """
  if form == 'onnx':
    onnx.check_packages()
  with files.new_folder(out) as staged:
    # In READMEs, for whoever stands elsewhere.
    place = pathlib.Path(out).absolute()
    _WRITE[form](bundles.load(checkpoint), staged, name=place)


def main():
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
    help='what to write (default: %(default)s)',
  )
  args = parser.parse_args()
  write(args.checkpoint, args.out, args.format)
  print(f'Written: {args.out}. How to call it: {args.out}/README.md')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
