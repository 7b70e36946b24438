"""The readers' annotations, and which nodules count. Door: `selection`."""
