"""Time and peak memory of loading weights of the paper's sizes."""

import json
import math
import sys

import main_job
import numpy as np
import pytest
import weights_made_up

from mtnet_jax.models import mtnet

pytestmark = pytest.mark.slow

# Runs in a separate process, and imports everything before it measures.
_MEASURE = """
import json, resource, sys, time
import numpy as np
from mtnet_jax import pretrained

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, load = sys.argv[1], getattr(pretrained, sys.argv[2])
for module in sys.argv[3:]:
  __import__(module)
np.zeros(8) @ np.zeros(8)
before, started = peak(), time.perf_counter()
weights = load(path)
seconds = time.perf_counter() - started

def sizes(tree):
  if isinstance(tree, dict):
    return sum(map(sizes, tree.values()))
  return tree.nbytes

print(json.dumps({
  'seconds': seconds,
  'bytes': sizes(weights.variables),
  'peak': peak() - before,
}))
"""


def _write(name, directory):
  arrays, _ = weights_made_up.tensors(
    name,
    mtnet.CoarseSegNet()
    if name in weights_made_up.SEGMENTATION
    else mtnet.ClassNet(),
  )
  return arrays, weights_made_up.write(name, directory, arrays)


@pytest.mark.parametrize(
  ('name', 'suffix'),
  [
    ('torch_deeplab', '.safetensors'),
    pytest.param('torch_deeplab', '.pth', marks=pytest.mark.extra),
    pytest.param('torch_deeplab', 'old .pth', marks=pytest.mark.extra),
    ('timm_xception65', '.safetensors'),
    pytest.param('tensorflow_deeplab', '.ckpt', marks=pytest.mark.extra),
    ('keras_xception', '.h5'),
    ('timm_xception', '.safetensors'),
  ],
)
def test_loading_takes_10_s_and_2_5_times_the_size(name, suffix, tmp_path):
  modules = []
  if name == 'tensorflow_deeplab':
    pytest.importorskip('tensorflow', reason='needs the extra `tf`')
    modules = ['tensorflow']
  arrays, path = _write(name, tmp_path)
  if suffix.endswith('.pth'):
    torch = pytest.importorskip('torch', reason='needs the extra `interop`')
    modules, path = ['torch'], tmp_path / 'net.pth'
    torch.save(
      {key: torch.from_numpy(value) for key, value in arrays.items()},
      path,
      _use_new_zipfile_serialization=not suffix.startswith('old'),
    )
  task = 'deeplab' if name in weights_made_up.SEGMENTATION else 'xception'
  done = main_job.run(
    [sys.executable, '-c', _MEASURE, str(path), f'load_{task}', *modules]
  )
  assert done.returncode == 0, done.stderr[-2000:]
  cost = json.loads(done.stdout.splitlines()[-1])
  print(
    f'{name} {suffix}: {cost["seconds"]:.1f} s for'
    f' {cost["bytes"] / 2**20:.0f} MiB, peak {cost["peak"] / 2**20:.0f} MiB'
  )
  expected = sum(
    math.prod(np.shape(value))
    for key, value in arrays.items()
    if key not in weights_made_up.BESIDE[name]
  )
  # Every tensor was loaded; the mask channel adds at most 9 * 32 weights.
  assert 0 <= cost['bytes'] - 4 * expected <= 4 * 9 * 32
  assert cost['seconds'] < 10
  assert cost['peak'] < 2.5 * cost['bytes']
