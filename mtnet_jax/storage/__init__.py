"""Run directories, checkpoints and files on disk. Open first: `workdir`."""
