"""The machine: devices, processes, signals, memory. Start with `devices`."""
