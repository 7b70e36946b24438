"""The parts of `benchmarks.on_gpu`, which run on a machine with a GPU."""
