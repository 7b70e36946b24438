"""Scans read for a build, and what could not be. Door: `reader`."""
