"""Reader annotations and the choice of nodules. Start with `selection`."""
