"""The page of results on real nodules: `python -m benchmarks.results`."""
