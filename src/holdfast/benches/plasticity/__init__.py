"""Bench of what attaches to an optimiser: projection and the monitor of effective learning rates."""
