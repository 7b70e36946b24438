"""Where a pixel becomes a logit. Door: `mtnet`."""
