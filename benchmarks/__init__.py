"""Measurements: a command for each figure that the README shows, results as JSON beside them."""
