"""One run, or many. Door: `run`."""
