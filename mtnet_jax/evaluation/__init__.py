"""From outputs to records to metrics. Door: `scores`."""
