"""Loops in C++ for CPUs, where XLA makes slow ones; see `library`."""
