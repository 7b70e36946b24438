"""Code that hides some modules from an interpreter."""

# To be run first; `%` inserts the names of top-level modules.
WITHOUT = """
import sys
from importlib import machinery
finders = list(sys.meta_path)
class Without:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in %r:
      return None
    specs = (f.find_spec(name, path, target) for f in finders)
    return next(filter(None, specs), None)
  def find_distributions(self, *args, **kwargs):
    return machinery.PathFinder.find_distributions(*args, **kwargs)
sys.meta_path[:] = [Without()]
"""
