"""A trained model, from a run, a bundle or a URL. Door: `bundles`."""
