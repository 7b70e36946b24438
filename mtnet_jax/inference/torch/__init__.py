"""The networks in PyTorch, and the one file that leaves. Door: `mtnet`."""
