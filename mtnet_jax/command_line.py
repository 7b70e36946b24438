"""Flags of the commands that take a config, and what is wrong with them."""

import sys

from absl import flags


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
      if 'Did you mean' in message or isinstance(error, KeyError):
        # ml_collections quotes the key, and then the message, once more.
        message = message.replace('\\n', ' ').replace("\\'", "'").strip('"\'')
        message = f"the config has no key '{message}"
      message = ' '.join(message.split())
      print(f'error: {message} (--help explains)', file=sys.stderr)
      sys.exit(2)

  return parse
