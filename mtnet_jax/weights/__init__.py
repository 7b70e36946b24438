"""Loads other people's weights. Start with `load`."""
