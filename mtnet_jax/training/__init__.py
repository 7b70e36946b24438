"""Training: stages, steps, the loop. Open first: `trainer`."""
