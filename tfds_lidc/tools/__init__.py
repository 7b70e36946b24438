"""Commands for whoever maintains the dataset. Door: `make_nodules`."""
