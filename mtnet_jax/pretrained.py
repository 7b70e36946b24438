"""Loads public weights of other implementations into our networks.

    python -m mtnet_jax.pretrained --inspect FILE

prints the source of a file, which of its tensors would be loaded, and which
fields of the network they need. If a name or shape does not match, it prints an
error, and nothing can be loaded; see `weights.load`.
"""

import os

from mtnet_jax.models import mtnet
from mtnet_jax.system import command_line
from mtnet_jax.system import errors
from mtnet_jax.weights import files
from mtnet_jax.weights import load

# The names under which users import them.
load_deeplab = load.load_deeplab
load_xception = load.load_xception
Weights = load.Weights


def report(
  path: str | os.PathLike[str],
  net: mtnet.CoarseSegNet | mtnet.ClassNet | None = None,
) -> str:
  """Returns what `--inspect` prints; arguments and errors as `load.matches`."""
  return '\n\n'.join(
    _report(path, matched) for matched in load.matches(path, net)
  )


def _report(path: str | os.PathLike[str], matched: load.Match) -> str:
  num_used, num_parameters = matched.parameters()
  source = matched.source
  rows = {
    'source': source.title,
    'sha256': files.sha256(path),
    'network': f'{type(matched.net).__name__} ({source.task})',
    'tensors': (
      f'{len(matched.tensors) + len(matched.dropped)},'
      f' {len(matched.tensors)} of them used'
    ),
    'parameters': f'{num_used:,} of {num_parameters:,}',
    'dropped': load.some(matched.dropped) or 'none',
    'initialised': ', '.join(source.newly_initialised) or 'none',
    'fields': ', '.join(f'{k}={v}' for k, v in matched.fields.items()),
    'to use it': f'--config.pretrained.{source.task}={path}',
  }
  return '\n'.join(
    f'{key:<12}{errors.one_line(value)}' for key, value in rows.items()
  )


def main() -> None:
  """Runs the command."""
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
