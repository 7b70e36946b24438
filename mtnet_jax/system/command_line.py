"""Flags of the commands that take a config, and what is wrong with them."""

import functools
import re
import sys

from absl import flags
import tqdm


def parser(holder, *, example):
  """A `flags_parser` for `absl.app.run`.

  Args:
    holder: of `config_flags.DEFINE_config_file`.
    example: of a value of --config, for the message where it is missing.

  Returns:
    argv -> arguments; what is wrong becomes one line and exit code 2.
  """

  def parse(argv):
    try:
      arguments = flags.FLAGS(argv)
      if holder.value is None:
        raise ValueError(f'--config is missing, such as {example}')
      # A file that did not load fails only when it is read.
      holder.value.lock()
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
      # ml_collections raises an AttributeError of the KeyError.
      if isinstance(error.__context__ or error, KeyError):
        key, *meant = re.findall(r'[\w.]+(?=\\?[\'"])', message)
        message = f"the config has no key '{key}'"
        if meant:
          message += f"; did you mean '{meant[0]}'?"
      # Of an error in a config file it shows the whole way there.
      elif raised := re.findall(r'^\w+Error: (.*)', message, re.MULTILINE):
        message = raised[-1]
      message = ' '.join(message.split())
      print(f'error: {message} (--help explains)', file=sys.stderr)
      sys.exit(2)

  return parse


def progress_bar(description):
  """A function that shows a sequence's progress, with ETA."""
  return functools.partial(
    tqdm.tqdm, desc=description, unit='batch', leave=False
  )
