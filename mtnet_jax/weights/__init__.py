"""Other people's weights. Door: `load`."""
