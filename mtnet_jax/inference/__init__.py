"""Loads, averages, bundles and exports trained models. Start with `bundles`."""
