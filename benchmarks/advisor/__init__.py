"""How well the advisor searches: against other samplers, with early stopping, alive, and killed."""
