"""Where results become a page. Door: `page`."""
