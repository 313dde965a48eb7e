"""Benches of the callback that watches a training."""
