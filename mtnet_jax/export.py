"""Writes a trained model as StableHLO, to run without this package.

    python -m mtnet_jax.export --checkpoint=runs/demo --out=demo-stablehlo

OUT/README.md shows how to call it: HU patches and their spacing in, masks and
malignancy out, for any number of patches, on CPU, CUDA and TPU. It needs JAX
and safetensors, and nothing of mtnet_jax.

JAX opens such a file for about six months after the version that wrote it:
keep the run or its bundle, and export again.
"""

from mtnet_jax.inference import bundles
from mtnet_jax.inference import stablehlo
from mtnet_jax.storage import files
from mtnet_jax.system import command_line
from mtnet_jax.system import errors


def write(checkpoint, out):
  """Exports a model into a new folder.

  Args:
    checkpoint: as `bundles.load` takes it.
    out: the folder to make.

  Raises:
    errors.InputError: the model cannot be used, or the folder not written.
  """
  with files.new_folder(out) as staged:
    stablehlo.write(_one(bundles.load(checkpoint)), staged, name=out)


def _one(model):
  """The model, if it is a single one."""
  if hasattr(model, 'predict_fn'):
    return model
  raise errors.InputError(
    f'{model.name} is an average of {len(model.models)} networks'
    f'{" and their symmetries" if model.symmetries else ""}, and an exported'
    ' program holds one: export a run, or a bundle of one.'
  )


def main():
  parser = command_line.parser(__doc__, 'export')
  parser.add_argument(
    '--checkpoint',
    required=True,
    type=command_line.path,
    help='run directory or bundle, or a URL of one',
  )
  parser.add_argument('--out', **command_line.NEW_FOLDER)
  args = parser.parse_args()
  write(args.checkpoint, args.out)
  print(f'Written: {args.out}. How to call it: {args.out}/README.md')


if __name__ == '__main__':
  errors.exit_on_input_error(main)
