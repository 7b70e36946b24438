"""Convolutions, each in its fastest exact form. Open `conv` first."""
