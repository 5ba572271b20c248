"""Forms and panels that run bertkit from a notebook."""
