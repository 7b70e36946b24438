"""Training: stages, steps, the loop. Start with `trainer`."""
