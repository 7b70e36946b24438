"""What is on disk: run directories, checkpoints, files. Door: `workdir`."""
