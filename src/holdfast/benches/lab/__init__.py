"""Benches of lab: what the lab costs."""
