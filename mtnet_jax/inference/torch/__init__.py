"""The networks in PyTorch, as one exported file. Start with `mtnet`."""
