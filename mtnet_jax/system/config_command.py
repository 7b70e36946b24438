"""Runs a command whose --config is a file, with a flag for each field of it.

The flags are the command's own and new each time, not those that absl keeps for
the whole process: a notebook can run a command again, and another one after it.
"""

import re
import sys

from absl import app
from absl import flags

from mtnet_jax.system import paths

_HELP = ('help', 'helpshort', 'helpfull')


def run(main, *, define_flags, doc, example):
  """Parses the flags, calls `main` and exits with its code.

  Args:
    main: function of the parsed `flags.FlagValues`, whose `config` is locked.
    define_flags: function of the `flags.FlagValues`, in which it defines
      --config and what else the command has.
    doc: the command's docstring, which --help shows as it is.
    example: of a value of --config, for the message where it is missing.

  Raises:
    SystemExit: always.
  """
  values = flags.FlagValues()
  define_flags(values)
  parser = values['config'].parser
  load = parser.parse
  parser.parse = lambda path: load(paths.expand(path))
  text = f'{doc}\nFlags:\n{values.get_help(include_special_flags=False)}'
  for name in _HELP:
    flags.DEFINE_boolean(name, False, 'Show this.', flag_values=values)

  def parse(argv):
    # Those of absl, such as --verbosity, which it sets for the whole process.
    for flag in {flags.FLAGS[name] for name in flags.FLAGS}:
      if flag.name not in values:
        values[flag.name] = flag
    flags.FLAGS.mark_as_parsed()
    return _parse(values, argv, text, example)

  app.run(lambda _: main(values), flags_parser=parse)


def _parse(values, argv, text, example):
  """Parses argv; what is wrong becomes one line and exit code 2."""
  try:
    arguments = values(argv)
    if any(values[name].value for name in _HELP):
      print(text)
      sys.exit(0)
    if values.config is None:
      raise ValueError(f'--config is missing, such as {example}')
    # A file that did not load fails only when it is read.
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
    # ml_collections raises an AttributeError from the KeyError.
    if isinstance(error.__context__ or error, KeyError):
      key, *meant = re.findall(r'[\w.]+(?=\\?[\'"])', message)
      message = f"the config has no key '{key}'"
      if meant:
        message += f"; did you mean '{meant[0]}'?"
    # An error in a config file comes with its whole traceback.
    elif raised := re.findall(r'^\w+Error: (.*)', message, re.MULTILINE):
      message = raised[-1]
    message = ' '.join(message.split())
    print(f'error: {message} (--help explains)', file=sys.stderr)
    sys.exit(2)
