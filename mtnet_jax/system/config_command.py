"""Runs a command whose --config is a file, with a flag for each of its fields.

Each run of a command has its own flags, not those that absl keeps for the whole
process: a notebook can run a command twice, or one command after another.
"""

from collections.abc import Callable
import pathlib
import re
import sys
from typing import Any
from typing import NoReturn

from absl import app
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

import mtnet_jax
from mtnet_jax.system import paths

_HELP = ('help', 'helpshort', 'helpfull')


class _TupleParser(tuple_parser.TupleParser):
  """Parses tuples, also of unquoted words: --config.stages=coarse,class."""

  def parse(self, argument):
    if isinstance(argument, str) and re.fullmatch(r'[\w\s.,-]*', argument):
      words = [word.strip() for word in argument.split(',')]
      if not any(map(_is_number, words)):
        return tuple(filter(None, words))
    return super().parse(argument)


def _is_number(word):
  try:
    float(word)
  except ValueError:
    return False
  return True


def run(
  main: Callable[[flags.FlagValues], Any],
  *,
  define_flags: Callable[[flags.FlagValues], None],
  doc: str | None,
  example: str,
) -> NoReturn:
  """Parses the flags, calls `main` and exits with its code.

  Args:
    main: is called with the parsed flags, whose `config` is locked.
    define_flags: defines --config and the command's other flags.
    doc: the command's docstring, which --help shows unchanged.
    example: an example of --config, for the error where it is missing.

  Raises:
    SystemExit: always.
  """
  config_flags.register_flag_parser_for_type(tuple, _TupleParser())
  values = flags.FlagValues()
  define_flags(values)
  parser: Any = values['config'].parser
  load = parser.parse
  parser.parse = lambda path: load(paths.expand(path))
  text = f'{doc}\nFlags:\n{values.get_help(include_special_flags=False)}'
  for name in _HELP:
    flags.DEFINE_boolean(name, False, 'Show this.', flag_values=values)

  def parse(argv):
    # absl's own flags, such as --verbosity, apply to the whole process.
    for flag in {flags.FLAGS[name] for name in flags.FLAGS}:
      if flag.name not in values:
        values[flag.name] = flag
    flags.FLAGS.mark_as_parsed()
    return _parse(values, argv, text, example)

  app.run(lambda _: main(values), flags_parser=parse)


def _parse(values, argv, text, example):
  """Parses argv; an error is printed as one line, with exit code 2."""
  try:
    _check_file(argv)
    arguments = values(argv)
    if any(values[name].value for name in _HELP):
      print(text)
      sys.exit(0)
    if values.config is None:
      raise ValueError(f'--config is missing: give it, such as {example}')
    # Errors in the config file are raised here, when it is first used.
    values.config.lock()
    return arguments
  except (
    AttributeError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    flags.Error,
  ) as error:
    message = str(error)
    # ml_collections raises an AttributeError while it handles the KeyError.
    if isinstance(error.__context__ or error, KeyError):
      key, *meant = re.findall(r'[\w.]+(?=\\?[\'"])', message)
      message = f"the config has no key '{key}'"
      if meant:
        message += f"; did you mean '{meant[0]}'?"
    # The message of an error in a config file contains the whole traceback.
    elif raised := re.findall(r'^\w+Error: (.*)', message, re.MULTILINE):
      message = raised[-1]
    message = ' '.join(message.split())
    print(f'error: {message} (--help explains)', file=sys.stderr)
    sys.exit(2)


def _check_file(argv):
  """Raises a ValueError if the file of --config does not exist."""
  configs = re.findall('^--?config[=\n](.+)', '\n'.join(argv), re.MULTILINE)
  if not configs:
    return
  file, colon, variant = configs[-1].partition(':')
  path = pathlib.Path(paths.expand(file))
  if not path.is_file():
    where = '' if path.is_absolute() else f' in {pathlib.Path.cwd()}'
    raise ValueError(
      f'--config: there is no file {file}{where}:'
      f' {_way_out(path.name, colon + variant)}'
    )


def _way_out(name, variant):
  # In a clone of the repository, the configs lie beside the package.
  folder = pathlib.Path(mtnet_jax.__file__).parents[1] / 'configs'
  if (folder / name).is_file():
    return f'give --config={folder / name}{variant}'
  if (folder / 'mtnet.py').is_file():
    names = ', '.join(sorted(path.name for path in folder.glob('*.py')))
    return f'the configs of this project are {names} in {folder}'
  return (
    'give the path of a config, such as of configs/mtnet.py in a clone of this'
    " project's repository"
  )
