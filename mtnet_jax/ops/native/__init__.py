"""C++ loops for CPUs, where XLA's own are slow. Open `library` first."""
