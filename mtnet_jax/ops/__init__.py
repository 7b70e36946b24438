"""Convolutions, each in its fastest form. Door: `conv`."""
