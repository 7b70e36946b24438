"""Commands for maintainers of the dataset. Start with `make_nodules`."""
