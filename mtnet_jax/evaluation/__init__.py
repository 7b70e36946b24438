"""Turns outputs into records and records into metrics. Start with `scores`."""
