"""Loads other people's weights. Start at `load`."""
