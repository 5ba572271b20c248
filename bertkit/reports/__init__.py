"""Readers of a run's events: progress lines, pictures and TensorBoard files. No widgets here."""
