"""Reads a CT, follows nodules through it, writes masks. Open `series` first."""
