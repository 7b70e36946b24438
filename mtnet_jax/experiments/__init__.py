"""Runs the main job, or a sweep of many runs. Start with `run`."""
