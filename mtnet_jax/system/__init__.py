"""The machine: devices, processes, signals, memory, errors. Door: `devices`."""
