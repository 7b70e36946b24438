"""Turns outputs into records and records into metrics. Open first: `scores`."""
