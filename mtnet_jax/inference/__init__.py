"""Loads, averages, bundles and exports trained models. Start at `bundles`."""
