"""The machine: devices, processes, signals, memory. Open first: `devices`."""
