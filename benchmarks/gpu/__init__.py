"""What `benchmarks.on_gpu` measures in a visit to a machine with a GPU."""
