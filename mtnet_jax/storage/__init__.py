"""Run directories, checkpoints and files on disk. Start with `workdir`."""
