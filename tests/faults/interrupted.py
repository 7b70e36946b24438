"""Injects a fault at one of the changes that a process makes to a folder.

A change is a call that creates, renames or removes a file or folder, or opens a
file for writing.
"""

import builtins
import errno
import io
import os

# 'kill' ends the process like SIGKILL. 'full' makes one change fail; 'broken'
# makes that one and all later ones fail, like a disk that becomes read-only.
# 'ctrl-c' raises KeyboardInterrupt.
FAULTS = ('kill', 'full', 'broken', 'ctrl-c')
# Exit code of a killed process in a shell.
KILLED = 137
_CALLS = ('mkdir', 'rename', 'replace', 'rmdir', 'unlink')


class Interruption:
  """Counts the changes below a folder and injects a fault at one of them.

  It replaces functions of `os` and `open` for the rest of the process.

  Attributes:
    calls: names of the functions that made the changes.
  """

  def __init__(self, fault, at, root):
    """Replaces the functions.

    Args:
      fault: one of `FAULTS`.
      at: number of the change that fails, from 1; 0 for none.
      root: the folder.
    """
    self.calls = []
    self._fault, self._at, self._root = fault, at, os.path.realpath(root)
    for name in _CALLS:
      setattr(os, name, self._changing(name, getattr(os, name)))
    opened = self._writing(builtins.open)
    builtins.open = io.open = opened
    os.open = self._creating(os.open)

  def _check(self, name, path, dir_fd=None):
    # Only `rmtree` uses descriptors of folders, and only inside `root`.
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
