"""Ends a process, or fills its disk, at one of its changes of a folder.

A change is a call that makes, renames or removes a file or folder, or opens one
to write it.
"""

import builtins
import errno
import io
import os

# 'kill' ends the process as SIGKILL does; 'full' lets one change fail, 'broken'
# all from then on, as where a disk turns read-only; 'ctrl-c' is pressed.
FAULTS = ('kill', 'full', 'broken', 'ctrl-c')
# The exit code of a shell for a process that was killed.
KILLED = 137
_CALLS = ('mkdir', 'rename', 'replace', 'rmdir', 'unlink')


class Interruption:
  """Counts the changes below a folder; one of them goes wrong.

  Attributes:
    calls: the names of the calls, of all changes.
  """

  def __init__(self, fault, at, root):
    """Args: one of `FAULTS`; which change (0: none); the folder."""
    self.calls = []
    self._fault, self._at, self._root = fault, at, os.path.realpath(root)
    for name in _CALLS:
      setattr(os, name, self._changing(name, getattr(os, name)))
    opened = self._writing(builtins.open)
    builtins.open = io.open = opened
    os.open = self._creating(os.open)

  def _check(self, name, path, dir_fd=None):
    # Below a descriptor only `rmtree` works, and only on what is ours.
    if isinstance(path, int) or (
      dir_fd is None and not os.path.abspath(path).startswith(self._root)
    ):
      return
    self.calls.append(name)
    if self._at == 0 or len(self.calls) < self._at:
      return
    if len(self.calls) > self._at and self._fault != 'broken':
      return
    if self._fault == 'kill':
      os._exit(KILLED)
    if self._fault == 'ctrl-c':
      raise KeyboardInterrupt
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

  def _changing(self, name, call):
    def changed(path, *args, **kwargs):
      self._check(name, path, kwargs.get('dir_fd'))
      return call(path, *args, **kwargs)

    return changed

  def _writing(self, call):
    def opened(path, mode='r', *args, **kwargs):
      if set(mode) & set('wax+'):
        self._check('open', path)
      return call(path, mode, *args, **kwargs)

    return opened

  def _creating(self, call):
    def opened(path, flags, *args, **kwargs):
      if flags & os.O_CREAT:
        self._check('open', path, kwargs.get('dir_fd'))
      return call(path, flags, *args, **kwargs)

    return opened
