"""The networks, and which of them feeds which. Open `mtnet` first."""
