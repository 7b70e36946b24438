"""Data: nodules from disk to network input. Open first: `lidc`."""
