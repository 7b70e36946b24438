"""Public weights, from other people's files, as variables of our networks.

    python -m mtnet_jax.pretrained --inspect FILE

says what a file is, what of it would be loaded, and what follows for the
network. What does not fit in every name and shape is an error, and nothing is
loaded; see `weights.load`.
"""

from mtnet_jax.system import command_line
from mtnet_jax.system import errors
from mtnet_jax.weights import files
from mtnet_jax.weights import load

# The names under which users import them.
load_deeplab = load.load_deeplab
load_xception = load.load_xception
Weights = load.Weights


def report(path, net=None):
  """What `--inspect` prints about a file; arguments as in `load.matches`."""
  return '\n\n'.join(
    _report(path, matched) for matched in load.matches(path, net)
  )


def _report(path, matched):
  used, total = matched.parameters()
  source = matched.source
  rows = {
    'source': source.title,
    'sha256': files.sha256(path),
    'network': f'{type(matched.net).__name__} ({source.task})',
    'tensors': (
      f'{len(matched.tensors) + len(matched.dropped)},'
      f' {len(matched.tensors)} of them used'
    ),
    'parameters': f'{used:,} of {total:,}',
    'dropped': load.some(matched.dropped) or 'none',
    'stay new': ', '.join(source.newly_initialised) or 'none',
    'fields': ', '.join(f'{k}={v}' for k, v in matched.fields.items()),
    'to use it': f'--config.pretrained.{source.task}={path}',
  }
  return '\n'.join(
    f'{key:<12}{errors.one_line(value)}' for key, value in rows.items()
  )


def main():
  parser = command_line.parser(__doc__, 'pretrained')
  parser.add_argument(
    '--inspect',
    required=True,
    metavar='FILE',
    type=command_line.path,
    help='file of public weights',
  )
  print(report(parser.parse_args().inspect))


if __name__ == '__main__':
  errors.exit_on_input_error(main)
