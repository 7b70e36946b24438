"""Convolutions, each in its fastest exact form. Start with `conv`."""
