"""A user's mistake gives one line; a defect keeps its traceback."""

import sys

import jax
import main_job
import numpy as np
import pytest

from mtnet_jax.system import errors as errors_lib
from tfds_lidc import errors as lidc_errors

both_packages = pytest.mark.parametrize('errors', [errors_lib, lidc_errors])


@both_packages
def test_input_error_becomes_one_line(errors, capsys):
  def main():
    raise errors.InputError('no such file:\n  x.dcm')

  with pytest.raises(SystemExit) as e:
    errors.exit_on_input_error(main)
  assert e.value.code == 2
  assert capsys.readouterr().err == 'error: no such file: x.dcm\n'


@both_packages
def test_messages_contain_no_terminal_control_characters(errors, capsys):
  def main():
    raise errors.InputError('its id is \x1b]0;title\x07\x1b[2J\x9b1m\u202e.')

  with pytest.raises(SystemExit):
    errors.exit_on_input_error(main)
  assert capsys.readouterr().err == (
    'error: its id is \ufffd]0;title\ufffd\ufffd[2J\ufffd1m\ufffd.\n'
  )


@both_packages
def test_an_interrupt_is_one_line(errors, capsys):
  def main():
    raise KeyboardInterrupt

  with pytest.raises(SystemExit) as e:
    errors.exit_on_input_error(main)
  assert e.value.code == 130
  assert capsys.readouterr().err == 'error: interrupted\n'


@both_packages
@pytest.mark.parametrize('code', [None, 0, 3])
def test_return_value_is_the_exit_code(errors, code):
  with pytest.raises(SystemExit) as e:
    errors.exit_on_input_error(lambda: code)
  assert e.value.code == code


@both_packages
def test_defects_are_not_hidden(errors):
  with pytest.raises(ZeroDivisionError):
    errors.exit_on_input_error(lambda: 1 / 0)


def test_errors_of_another_package_keep_their_message():
  with pytest.raises(errors_lib.InputError, match='^no such file: x$') as e:
    with errors_lib.translated(lidc_errors.InputError):
      raise lidc_errors.InputError('no such file: x')
  assert isinstance(e.value.__cause__, lidc_errors.InputError)


def test_other_errors_are_not_translated():
  with pytest.raises(ZeroDivisionError):
    with errors_lib.translated(lidc_errors.InputError):
      raise ZeroDivisionError


@pytest.mark.parametrize('platform', ('cuda', 'nonsense'))
def test_missing_devices_give_one_line(platform):
  """In `load` and in a command, for each exception that JAX raises."""
  loads = (
    'import mtnet_jax\n'
    'from mtnet_jax.system import errors\n'
    'try:\n'
    "  mtnet_jax.load('lidc-small')\n"
    'except errors.InputError as error:\n'
    '  print(error)\n'
  )
  done = main_job.run([sys.executable, '-c', loads], JAX_PLATFORMS=platform)
  assert done.returncode == 0, done.stderr
  assert f'the devices of JAX_PLATFORMS={platform}' in done.stdout
  computes = (
    'import jax\n'
    'from mtnet_jax.system import errors\n'
    'errors.exit_on_input_error(lambda: jax.devices())\n'
  )
  done = main_job.run([sys.executable, '-c', computes], JAX_PLATFORMS=platform)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith('error: JAX cannot use')


def test_other_assertions_keep_their_traceback():
  def main():
    raise AssertionError('ours')

  with pytest.raises(AssertionError, match='ours'):
    errors_lib.exit_on_input_error(main)


@pytest.mark.parametrize(
  'kind',
  (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    StopIteration,
    TypeError,
    UnicodeDecodeError,
    ValueError,
    ZeroDivisionError,
    np.linalg.LinAlgError,
    jax.errors.TracerArrayConversionError,
  ),
)
def test_wrong_values_of_a_file_give_one_line(kind):
  """The line has the file, the exception and what to do."""
  error = kind.__new__(kind, 'odd')
  error.args = ('odd',)
  with pytest.raises(
    errors_lib.InputError, match=rf'^x is damaged: {kind.__name__}, .*Go\.$'
  ) as e:
    with errors_lib.of_wrong_values('x is damaged', way_out='Go.'):
      raise error
  assert e.value.__cause__ is error


@pytest.mark.parametrize('kind', (AssertionError, OSError, RuntimeError))
def test_other_exceptions_keep_their_traceback(kind):
  with pytest.raises(kind, match='ours'):
    with errors_lib.of_wrong_values('x is damaged', way_out='Go.'):
      raise kind('ours')
