"""Benches of action models."""
