"""Reads scans for a build, and lists what is lost. Start with `reader`."""
