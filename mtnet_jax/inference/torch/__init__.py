"""The networks in PyTorch, which an export folds into one file; see `mtnet`."""
