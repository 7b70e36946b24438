"""Reads a volume file in a separate process, to see whether ITK crashes.

ITK crashes on some damaged headers, and Python cannot catch that. The process
runs this file as a script, so that it imports nothing else:

    python -P image_probe.py FILE MAX_VOXELS
"""

import math
import os
import subprocess
import sys

# A CT of a thousand slices takes seconds, or a minute from a slow disk.
_TIMEOUT_S = 300


def survives(path: str | os.PathLike[str], max_voxels: int) -> bool:
  """Whether a process that reads a file neither crashes nor hangs.

  Args:
    path: the file.
    max_voxels: if the header claims more voxels, only the header is read.
  """
  try:
    done = subprocess.run(
      [sys.executable, '-P', __file__, str(path), str(max_voxels)],
      capture_output=True,
      timeout=_TIMEOUT_S,
      check=False,
    )
  except subprocess.TimeoutExpired:
    return False
  return done.returncode >= 0


def _main():
  import SimpleITK

  path, max_voxels = sys.argv[1:]
  reader = SimpleITK.ImageFileReader()
  reader.SetFileName(path)
  # An exception is not a crash: the caller gets it when it reads the file.
  try:
    reader.ReadImageInformation()
    if math.prod(reader.GetSize()) <= int(max_voxels):
      reader.Execute()
  except RuntimeError:
    pass


if __name__ == '__main__':
  _main()
