"""Where a CT is read, and masks are written for it. Door: `series`."""
