"""The networks, and which of them feeds which. Start with `mtnet`."""
