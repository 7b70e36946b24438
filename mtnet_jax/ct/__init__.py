"""Reads a CT, follows nodules through it, writes masks. Start with `series`."""
