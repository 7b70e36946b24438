"""Nodules from disk to network input. Door: `lidc`."""
