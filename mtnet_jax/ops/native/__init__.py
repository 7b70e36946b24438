"""C++ loops for CPUs, where XLA's own are slow. Start with `library`."""
