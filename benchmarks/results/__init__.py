"""Makes the page of results on real nodules, docs/results.md."""
