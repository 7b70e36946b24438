"""GPUs: what they can do, and how to compile for one that is not there.

Speeds are NVIDIA's (data sheets of the A100 80 GB SXM, H100 SXM and H200 SXM):
dense products, bfloat16 on tensor cores, float32 without them.
"""

import dataclasses

from jax.experimental import topologies


@dataclasses.dataclass(frozen=True)
class Card:
  """A GPU.

  Attributes:
    name: as its driver says it.
    flops: compute type -> products and sums a second.
    bandwidth: of its memory, bytes a second.
    memory: bytes.
    capability: CUDA compute capability, (major, minor).
    cores: streaming multiprocessors.
    clock_ghz: at most.
    shared_memory: of a multiprocessor, bytes.
    l2: bytes.
  """

  name: str
  flops: dict
  bandwidth: float
  memory: float
  capability: tuple
  cores: int
  clock_ghz: float
  shared_memory: int
  l2: int

  def devices(self):
    """A topology of one such card, for which `jax.jit` compiles.

    Raises:
      RuntimeError: JAX's CUDA plugin is not installed.
    """
    try:
      return topologies.get_topology_desc(
        platform='cuda', target_config=self._target(), topology='1x1x1'
      )
    except NotImplementedError as error:
      raise RuntimeError(
        "JAX's CUDA plugin compiles for GPUs that are not there, but it is not"
        " here, either: pip install 'jax[cuda12]', in an environment of its own"
      ) from error

  def _target(self):
    major, minor = self.capability
    per_block = self.shared_memory - 1024
    return f"""
      platform_name: "CUDA"
      device_description_str: "{self.name}"
      dnn_version_info {{ major: 9 minor: 10 }}
      runtime_version {{ major: 12 minor: 9 }}
      gpu_device_info {{
        cuda_compute_capability {{ major: {major} minor: {minor} }}
        core_count: {self.cores}
        clock_rate_ghz: {self.clock_ghz}
        memory_bandwidth: {int(self.bandwidth)}
        device_memory_size: {int(self.memory)}
        l2_cache_size: {self.l2}
        shared_memory_per_core: {self.shared_memory}
        shared_memory_per_block_optin: {per_block}
        shared_memory_per_block: 49152
        fpus_per_core: {128 if major >= 9 else 64}
        threads_per_warp: 32
        threads_per_block_limit: 1024
        threads_per_core_limit: 2048
        registers_per_core_limit: 65536
        registers_per_block_limit: 65536
        block_dim_limit_x: 2147483647
        block_dim_limit_y: 65535
        block_dim_limit_z: 65535
      }}
    """


_HOPPER = {
  'flops': {'bfloat16': 989e12, 'float32': 67e12},
  'capability': (9, 0),
  'cores': 132,
  'clock_ghz': 1.98,
  'shared_memory': 228 << 10,
  'l2': 50 << 20,
}

CARDS = {
  'a100': Card(
    name='NVIDIA A100-SXM4-80GB',
    flops={'bfloat16': 312e12, 'float32': 19.5e12},
    bandwidth=2.039e12,
    memory=80e9,
    capability=(8, 0),
    cores=108,
    clock_ghz=1.41,
    shared_memory=164 << 10,
    l2=40 << 20,
  ),
  'h100': Card(
    name='NVIDIA H100 80GB HBM3', bandwidth=3.35e12, memory=80e9, **_HOPPER
  ),
  'h200': Card(name='NVIDIA H200', bandwidth=4.8e12, memory=141e9, **_HOPPER),
}
