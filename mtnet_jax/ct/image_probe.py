"""Lets a process of its own read a volume of one file first.

ITK crashes on some damaged headers, out of Python's reach. Run as a script, so
that nothing else is imported:

    python -P image_probe.py FILE MAX_VOXELS
"""

import math
import subprocess
import sys

# A CT of a thousand slices takes seconds, from a slow disk a minute.
_SECONDS = 300


def survives(path, max_voxels):
  """Whether a process that reads a file ends by itself.

  Args:
    path: of the file.
    max_voxels: of files that claim more, the header alone is read.
  """
  try:
    done = subprocess.run(
      [sys.executable, '-P', __file__, str(path), str(max_voxels)],
      capture_output=True,
      timeout=_SECONDS,
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
  # What ITK says of damage is heard by whoever reads the file next.
  try:
    reader.ReadImageInformation()
    if math.prod(reader.GetSize()) <= int(max_voxels):
      reader.Execute()
  except RuntimeError:
    pass


if __name__ == '__main__':
  _main()
