"""Where training happens. Door: `trainer`."""
