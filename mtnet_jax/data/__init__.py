"""Data: nodules from disk to network input. Start with `lidc`."""
